"""A pass as bytes, for worker processes of this very program.

The module travels; its anatomy, which is made of functions bound to it, is found again where it arrives.
"""

import cloudpickle

from vitscope.engine.shard import Pass
from vitscope.models.catalogue import adapter_of
from vitscope.models.subject import Composition, Subject


def packed(work: Pass) -> bytes:
    """The pass as bytes. Cost: the model's weights and, of images held in memory, their pixels."""
    facts = dict(vars(work.subject))
    if isinstance(work.subject.anatomy, Composition):
        facts["anatomy"] = None
    return cloudpickle.dumps((facts, work.images, work.diagnostics, work.batch_size))


def unpacked(content: bytes) -> Pass:
    """The pass that :func:`packed` made into bytes. Only for bytes of this program's own: unpickling runs code."""
    facts, images, diagnostics, batch_size = cloudpickle.loads(content)
    if facts["anatomy"] is None:
        adapter = adapter_of(facts["module"])
        assert adapter is not None, "a module whose adapter was found once is found again"
        facts["anatomy"] = adapter.anatomy(facts["module"])
    return Pass(Subject(**facts), images, diagnostics, batch_size)
