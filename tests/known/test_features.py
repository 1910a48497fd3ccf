"""Token features on disk: what is kept by hand, found again, resumed from wherever it stopped, or plainly refused."""

import copy
import json
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.decomposition import PCA
from torch import nn
from torch.nn import functional

from vitscope.convex.features import Features, TokenExtractor, TokenRecipe, extract
from vitscope.convex.features import store as stores
from vitscope.convex.features.extractor import average_patches
from vitscope.convex.features.projection import Projection, principal_components
from vitscope.data import images as opened
from vitscope.engine.work.executor import InProcess, Processes
from vitscope.interventions.lesion import Lesion
from vitscope.interventions.token_keep import TokenKeep
from vitscope.measurement.errors import UserError
from vitscope.models.load import load
from vitscope.models.pixels import PixelInput
from vitscope.models.stream import map_stream
from vitscope.models.subject import Composition, Preprocessing, Subject

PLAIN = TokenRecipe(normalise=False)
INPUT = PixelInput(32, 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class Interrupted(BaseException):
    """What a user's interrupt is."""


@dataclass
class Stem:
    """The pixels themselves as a feature map of three channels; counts the images it is given."""

    images: int = 0

    def __call__(self, images):
        self.images += len(images)
        return map_stream(images)


def pixels(picture):
    return torch.tensor(np.asarray(picture.convert("RGB")) / 255, dtype=torch.float32).permute(2, 0, 1)


def identity(height=4, width=4) -> tuple[Subject, Stem]:
    """A subject whose tokens are its pixels' colours."""
    stem = Stem()
    anatomy = Composition(stem, (), lambda stream: stream.patches.mean(1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Linear(3, 3).eval()
    return Subject("colours", "none", module, anatomy, Preprocessing((3, height, width), pixels, "as it is"), 3), stem


def colours(count=10, height=4, width=4, labelled=True, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return opened((values, np.arange(count) % 3) if labelled else values), values


def small_vit(seed=0, **more):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
        module = timm.create_model("vit_tiny_patch16_224", **{**sizes, **more})
    return load(module, input=INPUT)


def interrupting_after(calls):
    """Progress that interrupts at its call of this number, from 1."""
    seen = []

    def progress(done, total):
        seen.append(done)
        if len(seen) == calls:
            raise Interrupted

    return progress


def test_tokens_are_the_last_stream_in_order(tmp_path):
    subject, _ = identity()
    images, values = colours()
    found = extract(subject, images, PLAIN, folder=tmp_path, batch_size=4)
    assert found.tokens.dtype == np.float32
    np.testing.assert_allclose(found.tokens, values.reshape(10, 16, 3) / 255, rtol=1e-6)
    np.testing.assert_array_equal(found.labels, np.arange(10) % 3)
    np.testing.assert_array_equal(found.targets, found.labels)
    np.testing.assert_array_equal(found.positions, np.arange(10))
    assert (found.grid, found.prefix, found.classes, found.broken) == ((4, 4), 0, None, ())
    with pytest.raises(ValueError, match="read-only"):
        found.tokens[0, 0, 0] = 1


def test_a_token_is_normalised_over_its_entries(tmp_path):
    subject, _ = identity(1, 1)
    images = opened(np.array([[[[10, 20, 60]]]], dtype=np.uint8))
    found = extract(subject, images, folder=tmp_path)
    values = np.array([10, 20, 60]) / 255  # mean 30, deviations -20, -10, 30: variance 1400 / 3
    wanted = (values - 30 / 255) / np.sqrt(1400 / 3 / 255**2 + 1e-6)
    np.testing.assert_allclose(found.tokens[0, 0], wanted, rtol=1e-5)
    assert found.tokens.shape == (1, 1, 3)


def test_neighbours_are_averaged_after_they_are_normalised(tmp_path):
    subject, _ = identity(2, 4)
    images, values = colours(3, 2, 4)
    found = extract(subject, images, TokenRecipe(pool=1), folder=tmp_path)
    plain = extract(subject, images, folder=tmp_path)
    np.testing.assert_allclose(found.tokens[:, 0], plain.tokens.mean(1), rtol=1e-5, atol=1e-6)
    two = extract(subject, images, TokenRecipe(pool=2, normalise=False), folder=tmp_path)
    right = values[:, 1, 2:].mean(1) / 255  # the second row's right half
    np.testing.assert_allclose(two.tokens[:, 3], right, rtol=1e-5)
    assert two.grid == (2, 2)


@pytest.mark.parametrize(("grid", "pool"), [((4, 4), 2), ((5, 7), 3), ((14, 14), 5), ((3, 4), 3), ((2, 9), 1)])
def test_pooling_is_adaptive_average_pooling(grid, pool):
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(2, grid[0] * grid[1], 3, generator=generator)
    reference = functional.adaptive_avg_pool2d(patches.unflatten(1, grid).permute(0, 3, 1, 2), pool)
    torch.testing.assert_close(average_patches(patches, grid, pool), reference.flatten(2).transpose(1, 2))


def test_a_normalised_class_token_is_what_the_models_own_norm_and_head_read(tmp_path):
    subject = small_vit()
    with torch.no_grad():
        for parameter in subject.module.norm.parameters():
            parameter.add_(torch.linspace(-0.5, 0.5, 24))
    images, values = colours(6, 32, 32)
    found = extract(subject, images, TokenRecipe(prefix=True), folder=tmp_path)
    assert (found.prefix, found.grid, found.tokens.shape) == (1, (4, 4), (6, 17, 24))
    norm, head = subject.module.norm, subject.module.head
    batch = torch.stack([subject.preprocessing.transform(Image.fromarray(one)) for one in values])
    with torch.no_grad():
        logits = head(torch.from_numpy(found.tokens[:, 0].copy()) * norm.weight + norm.bias)
        torch.testing.assert_close(logits, subject.module(batch), rtol=1e-4, atol=1e-5)
    without = extract(subject, images, folder=tmp_path)
    np.testing.assert_array_equal(without.tokens, found.tokens[:, 1:])


def test_the_first_component_of_rows_on_a_line_is_the_line():
    along = torch.arange(5.0)[:, None] * torch.tensor([[1.0, 2.0, -3.0]]) + torch.tensor([[7.0, 0.0, 1.0]])
    found = principal_components(iter([along[:2], along[2:]]), 1)
    torch.testing.assert_close(found.components[:, 0], torch.tensor([-1.0, -2.0, 3.0]) / 14**0.5)
    torch.testing.assert_close(found.mean, torch.tensor([9.0, 4.0, -5.0]))


def test_components_are_those_of_scikit_learn_however_the_rows_are_cut():
    rows = np.random.default_rng(0).normal(size=(60, 5)) * [5, 4, 3, 2, 1] + 1e4
    reference = PCA(3).fit(rows)
    signs = np.sign(np.take_along_axis(reference.components_, np.abs(reference.components_).argmax(1)[:, None], 1))
    for size in (1, 7, 60):
        found = principal_components((torch.from_numpy(rows[i : i + size]) for i in range(0, 60, size)), 3)
        np.testing.assert_allclose(found.components.T, reference.components_ * signs, atol=1e-6)
        np.testing.assert_allclose(found.mean, reference.mean_, rtol=1e-6)


def test_the_projection_is_fitted_on_the_tokens_and_used_again(tmp_path):
    subject, _ = identity()
    train, values = colours(40)
    found = extract(subject, train, TokenRecipe(width=2, normalise=False), folder=tmp_path)
    reference = PCA(2).fit(values.reshape(-1, 3) / 255)
    signs = np.sign(np.take_along_axis(reference.components_, np.abs(reference.components_).argmax(1)[:, None], 1))
    wanted = reference.transform(values.reshape(-1, 3) / 255) * signs[:, 0]
    np.testing.assert_allclose(found.tokens.reshape(-1, 2), wanted, atol=1e-5)
    test, others = colours(5, seed=1)
    again = extract(subject, test, folder=tmp_path, extractor=found.extractor)
    wanted = reference.transform(others.reshape(-1, 3) / 255) * signs[:, 0]
    np.testing.assert_allclose(again.tokens.reshape(-1, 2), wanted, atol=1e-5)
    assert again.extractor.recipe == found.extractor.recipe
    own = extract(subject, test, found.extractor.recipe, folder=tmp_path)
    assert own.address != again.address
    assert not np.allclose(own.tokens, again.tokens, atol=1e-3)


def test_at_most_512_images_are_drawn_by_the_seed_for_the_fit(tmp_path):
    subject, stem = identity(1, 1)
    images, _ = colours(600, 1, 1)
    found = extract(subject, images, TokenRecipe(width=3), folder=tmp_path)
    assert stem.images == 3 * 2 + 512 + 600  # three walks of the probe
    other = extract(subject, images, TokenRecipe(width=3), folder=tmp_path, seed=1)
    assert other.address != found.address
    assert not torch.equal(other.extractor.projection.mean, found.extractor.projection.mean)


def test_finished_features_are_found_and_nothing_is_computed(tmp_path):
    subject, stem = identity()
    images, _ = colours()
    first = extract(subject, images, TokenRecipe(width=2), folder=tmp_path)
    stem.images = 0
    told = []
    again = extract(
        replace(subject, weights="elsewhere"),
        replace(images, name="renamed"),
        TokenRecipe(width=2),
        folder=tmp_path,
        batch_size=3,
        progress=lambda done, total: told.append(done),
    )
    assert (stem.images, told, again.address) == (0, [], first.address)
    np.testing.assert_array_equal(again.tokens, first.tokens)
    torch.testing.assert_close(again.extractor.projection.components, first.extractor.projection.components)
    names = {path.name for path in (tmp_path / first.address).iterdir()}
    assert names == {"tokens.npy", "labels.npy", "projection.safetensors", "features.json"}
    assert json.loads((tmp_path / first.address / "features.json").read_text())["spec"]["verb"] == "features"


def test_another_question_has_another_address(tmp_path):
    subject, images = small_vit(), colours(4, 32, 32)[0]
    asked = [
        (subject, images, TokenRecipe()),
        (subject, images, TokenRecipe(pool=2)),
        (subject, images, TokenRecipe(normalise=False)),
        (subject, images, TokenRecipe(prefix=True)),
        (subject, images, TokenRecipe(width=4)),
        (small_vit(seed=1), images, TokenRecipe()),
        (Lesion((2,))(subject), images, TokenRecipe()),
        (subject, colours(4, 32, 32, seed=1)[0], TokenRecipe()),
        (subject, colours(4, 32, 32, labelled=False)[0], TokenRecipe()),
    ]
    found = [extract(one, pictures, recipe, folder=tmp_path) for one, pictures, recipe in asked]
    assert len({each.address for each in found}) == len(asked)
    assert not np.allclose(found[0].tokens, found[6].tokens)


def test_progress_counts_the_fit_and_the_pass(tmp_path):
    subject, _ = identity()
    told = []
    extract(
        subject, colours(20)[0], TokenRecipe(width=1), folder=tmp_path, batch_size=8, progress=lambda *n: told.append(n)
    )
    assert told == [(0, 40), (16, 40), (20, 40), (20, 40), (28, 40), (36, 40), (40, 40)]


@pytest.mark.parametrize("batch_size", [4, 3, 20])
def test_an_interrupted_pass_goes_on_at_its_batch(tmp_path, batch_size):
    subject, stem = identity()
    images, _ = colours(18)
    recipe = TokenRecipe(width=2)
    whole = extract(subject, images, recipe, folder=tmp_path / "whole", batch_size=4)
    with pytest.raises(Interrupted):  # told of the fit 0, 16, 18, of the pass 18, 22, 26
        extract(subject, images, recipe, folder=tmp_path, batch_size=4, progress=interrupting_after(6))
    left = {path.name for path in (tmp_path / whole.address).iterdir()}
    assert left == {"tokens.part", "projection.safetensors", "partial"}
    stem.images = 0
    found = extract(subject, images, recipe, folder=tmp_path, batch_size=batch_size)
    assert stem.images == 3 * 2 + 18 - 8 // batch_size * batch_size
    np.testing.assert_allclose(found.tokens, whole.tokens, rtol=1e-5, atol=1e-6)


def test_rows_are_in_the_file_before_they_are_counted(tmp_path):
    (subject, _), (images, _), seen = identity(), colours(10), []
    whole = extract(subject, images, folder=tmp_path / "whole")
    header = (tmp_path / "whole" / whole.address / "tokens.npy").stat().st_size - whole.tokens.nbytes

    def progress(done, total):
        for path in tmp_path.glob("*/tokens.part"):
            counted = sorted(int(part.name.split("-")[2]) for part in path.parent.glob("partial/*/images-*"))
            rows = np.frombuffer(path.read_bytes()[header:], np.float32).reshape(-1, 16, 3)
            seen.append(counted)
            np.testing.assert_allclose(rows[: counted[-1]], whole.tokens[: counted[-1]], rtol=1e-5, atol=1e-6)

    extract(subject, images, folder=tmp_path, batch_size=4, progress=progress)
    assert seen == [[4], [4, 8], [4, 8, 10]]


def test_rows_that_were_not_counted_are_written_anew(tmp_path):
    subject, _ = identity()
    images, _ = colours(10)
    whole = extract(subject, images, folder=tmp_path / "whole", batch_size=4)
    with pytest.raises(Interrupted):
        extract(subject, images, folder=tmp_path, batch_size=4, progress=interrupting_after(2))
    with open(tmp_path / whole.address / "tokens.part", "ab") as file:
        file.write(b"\xff" * 5000)  # more than all rows there will be
    found = extract(subject, images, folder=tmp_path, batch_size=4)
    np.testing.assert_array_equal(found.tokens, whole.tokens)
    one, two = ((folder / whole.address / "tokens.npy").read_bytes() for folder in (tmp_path, tmp_path / "whole"))
    assert one == two


def test_counted_rows_that_are_gone_are_computed_again(tmp_path):
    subject, _ = identity()
    images, _ = colours(10)
    whole = extract(subject, images, folder=tmp_path / "whole")
    with pytest.raises(Interrupted):
        extract(subject, images, folder=tmp_path, batch_size=4, progress=interrupting_after(3))
    with open(tmp_path / whole.address / "tokens.part", "r+b") as file:
        file.truncate(300)
    np.testing.assert_array_equal(extract(subject, images, folder=tmp_path, batch_size=4).tokens, whole.tokens)


def test_an_interrupt_at_the_end_costs_nothing(tmp_path, monkeypatch):
    subject, stem = identity()
    images = broken_images(tmp_path / "pictures")
    write = stores.write_whole

    def failing(path, content):
        if path.name == "features.json":
            raise Interrupted
        return write(path, content)

    monkeypatch.setattr(stores, "write_whole", failing)
    with pytest.raises(Interrupted):
        extract(subject, images, folder=tmp_path, batch_size=2)
    monkeypatch.undo()
    assert not list(tmp_path.glob("*/features.json"))
    stem.images = 0
    found = extract(subject, images, folder=tmp_path, batch_size=2)
    assert (stem.images, found.tokens.shape) == (3 * 2, (5, 16, 3))


@pytest.mark.parametrize("calls", [4, 6])
def test_a_pass_that_goes_on_gives_the_same_to_the_last_bit(tmp_path, calls):
    subject, images, recipe = small_vit(), colours(18, 32, 32)[0], TokenRecipe(width=5)
    whole = extract(subject, images, recipe, folder=tmp_path / "whole", batch_size=4)
    with pytest.raises(Interrupted):  # after the fit, and after two batches
        extract(subject, images, recipe, folder=tmp_path, batch_size=4, progress=interrupting_after(calls))
    found = extract(subject, images, recipe, folder=tmp_path, batch_size=4)
    np.testing.assert_array_equal(found.tokens, whole.tokens)


def test_workers_give_the_same_rows_wherever_images_are_missing(tmp_path):
    images, subject = broken_images(tmp_path / "pictures"), small_vit()
    alone, shared = (
        extract(subject, images, folder=tmp_path / name, batch_size=2, executor=executor)
        for name, executor in (("alone", InProcess()), ("shared", Processes(2)))
    )
    np.testing.assert_allclose(shared.tokens, alone.tokens, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(shared.positions, [1, 2, 4, 5, 6])
    assert shared.broken == alone.broken
    assert len(shared.broken) == 2


@pytest.mark.parametrize("missing", [(), (0, 3)])
@pytest.mark.parametrize("last", ["features.json", "partial"])
def test_a_kill_at_the_very_end_leaves_nothing_behind(tmp_path, monkeypatch, missing, last):
    subject, stem = identity()
    images = broken_images(tmp_path / "pictures", missing=missing)
    whole = extract(subject, images, folder=tmp_path / "whole", batch_size=2)
    write, drop = stores.write_whole, stores.shutil.rmtree

    def killed(path, *given, **named):
        if path.name == last:
            raise Interrupted
        return write(path, *given) if given else drop(path, **named)

    monkeypatch.setattr(stores, "write_whole", killed)
    monkeypatch.setattr(stores.shutil, "rmtree", killed)
    with pytest.raises(Interrupted):
        extract(subject, images, folder=tmp_path, batch_size=2)
    monkeypatch.undo()
    stem.images = 0
    found = extract(subject, images, folder=tmp_path, batch_size=2)
    assert stem.images == (6 if last == "features.json" else 0)
    np.testing.assert_array_equal(found.tokens, whole.tokens)
    names = [{path.name for path in (folder / whole.address).iterdir()} for folder in (tmp_path, tmp_path / "whole")]
    assert names[0] == names[1] == {"tokens.npy", "features.json"}


def test_a_full_disk_is_said_and_gone_on_from(tmp_path):
    subject, stem = identity(16, 16)
    images, _ = colours(10, 16, 16)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, limits[1]))  # a row has 3072 bytes
    try:
        with pytest.raises(UserError, match=r"cannot be written \(.*\) after 6 of 10 images"):
            extract(subject, images, PLAIN, folder=tmp_path, batch_size=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    stem.images = 0
    found = extract(subject, images, PLAIN, folder=tmp_path, batch_size=2)
    assert stem.images == 3 * 2 + 4
    whole = extract(subject, images, PLAIN, folder=tmp_path / "whole")
    np.testing.assert_array_equal(found.tokens, whole.tokens)


def test_a_disk_that_will_not_do_is_said_before_anything(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(UserError, match=r"take 1\.9e-06 GB more"):
        extract(identity()[0], colours()[0], folder=tmp_path)


def broken_images(folder, max_broken=3, missing=(0, 3)):
    folder.mkdir()
    for number, value in enumerate(np.arange(7) * 30):
        Image.new("RGB", (4, 4), (int(value), 0, 255)).save(folder / f"{number}.png")
    for number in missing:
        (folder / f"{number}.png").write_bytes(b"no picture")
    return opened(folder, max_broken=max_broken)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_images_that_cannot_be_read_are_left_out_and_noted(tmp_path, batch_size):
    subject, _ = identity()
    images = broken_images(tmp_path / "pictures")
    found = extract(subject, images, PLAIN, folder=tmp_path / "out", batch_size=batch_size)
    np.testing.assert_array_equal(found.positions, [1, 2, 4, 5, 6])
    np.testing.assert_allclose(found.tokens[:, 0, 0] * 255, [30, 60, 120, 150, 180], rtol=1e-5)
    assert [broken.name.rsplit("/", 1)[-1] for broken in found.broken] == ["0.png", "3.png"]
    assert found.labels is None
    with pytest.raises(UserError, match="without labels"):
        _ = found.targets


def test_an_unreadable_image_counts_once_when_the_pass_goes_on(tmp_path):
    subject, _ = identity()
    images = broken_images(tmp_path / "pictures", max_broken=2)
    whole = extract(subject, images, folder=tmp_path / "whole")
    with pytest.raises(Interrupted):  # four images are done, and three of them in batches of three
        extract(subject, images, folder=tmp_path / "out", batch_size=1, progress=interrupting_after(5))
    found = extract(subject, images, folder=tmp_path / "out", batch_size=3)
    np.testing.assert_array_equal(found.tokens, whole.tokens)
    assert found.broken == whole.broken


def test_too_many_unreadable_images_stop_the_pass(tmp_path):
    with pytest.raises(UserError, match="--max-broken"):
        extract(identity()[0], broken_images(tmp_path / "pictures", 1), folder=tmp_path / "out", batch_size=1)


def test_no_readable_image_is_no_features(tmp_path):
    images = replace(broken_images(tmp_path / "pictures"), positions=np.array([0, 3]))
    with pytest.raises(UserError, match="None of the 2 images"):
        extract(identity()[0], images, folder=tmp_path / "out")


@pytest.mark.parametrize("recipe", [TokenRecipe(), TokenRecipe(pool=3, width=20, prefix=True)])
def test_the_batch_size_changes_rounding_at_most(tmp_path, recipe):
    subject, images = small_vit(), colours(9, 32, 32)[0]
    one, two = (extract(subject, images, recipe, folder=tmp_path / str(b), batch_size=b) for b in (1, 9))
    np.testing.assert_allclose(one.tokens, two.tokens, rtol=1e-4, atol=1e-5)
    assert one.address == two.address


def test_the_subject_is_left_as_it_was(tmp_path):
    subject = small_vit()
    before, state, draws = subject.fingerprint, torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    found = extract(subject, colours(4, 32, 32)[0], TokenRecipe(width=3), folder=tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(draws, np.random.get_state()[1])  # noqa: NPY002
    assert subject.fingerprint == before
    assert not any(part.training or part._forward_hooks for part in subject.module.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in subject.module.parameters())
    assert found.extractor.module is subject.module


def test_a_deep_copy_has_weights_of_its_own():
    subject = small_vit()
    extractor = TokenExtractor(subject, TokenRecipe(width=1), Projection(torch.zeros(24), torch.eye(24)[:, :1]))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    copied = copy.deepcopy(extractor)
    with torch.no_grad():
        before = extractor(images)
        torch.testing.assert_close(copied(images), before, rtol=0, atol=0)
        for parameter in copied.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        assert not torch.allclose(copied(images), before, atol=1e-2)
        torch.testing.assert_close(extractor(images), before, rtol=0, atol=0)


EXPORTED = """
import torch, warnings
warnings.simplefilter("ignore")
import timm
from vitscope.convex.features import TokenExtractor, TokenRecipe
from vitscope.convex.features.projection import Projection
from vitscope.interventions.lesion import Lesion
from vitscope.models.load import load
from vitscope.models.pixels import PixelInput

sizes = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)
module = timm.create_model("vit_tiny_patch16_224", **sizes)
subject = Lesion((2,))(load(module, input=PixelInput(32, 3, (0.5,), (0.25,))))
recipe = TokenRecipe(pool=3, width=5, prefix=True)
extractor = TokenExtractor(subject, recipe, Projection(torch.ones(24), torch.eye(24)[:, :5]))
two, five = torch.randn(2, 3, 32, 32), torch.randn(5, 3, 32, 32)
batch = torch.export.Dim("batch", min=1, max=64)
made = [torch.jit.trace(extractor, two), torch.export.export(extractor, (two,), dynamic_shapes=({0: batch},)).module()]
for one in made:
    torch.testing.assert_close(one(five), extractor(five))
print(tuple(extractor(five).shape))
"""


def test_it_goes_through_torchs_tracer_and_exporter():
    # In a process of its own: shapes are no integers to the tracer, which the type checks of the tests refuse.
    done = subprocess.run([sys.executable, "-c", EXPORTED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(5, 10, 5)"


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (TokenRecipe(pool=5), "4 x 4 patches, fewer than the 5 x 5"),
        (TokenRecipe(width=25), "have 24 entries; give a width of at most 24"),
    ],
)
def test_more_than_the_tokens_have_is_refused(tmp_path, recipe, message):
    with pytest.raises(UserError, match=message):
        extract(small_vit(), colours(2, 32, 32)[0], recipe, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("field", ["pool", "width"])
def test_a_recipe_for_nothing_is_refused(field):
    with pytest.raises(UserError, match=f"{field} is 0"):
        TokenRecipe(**{field: 0})


def test_tokens_that_do_not_fill_their_grid_are_refused(tmp_path):
    with pytest.raises(UserError, match="do not fill their grid of 4 x 4"):
        extract(TokenKeep(0.5, 2)(small_vit()), colours(2, 32, 32)[0], folder=tmp_path)


def test_a_subject_in_training_mode_is_refused(tmp_path):
    subject = small_vit()
    subject.module.train()
    with pytest.raises(UserError, match="training mode"):
        extract(subject, colours(2, 32, 32)[0], folder=tmp_path)


def test_features_that_are_not_finite_are_refused(tmp_path):
    subject, _ = identity()
    bad = replace(subject, preprocessing=replace(subject.preprocessing, transform=lambda p: pixels(p) / 0))
    with pytest.raises(UserError, match="not finite"):
        extract(bad, colours()[0], folder=tmp_path)


def test_images_of_another_size_than_the_models_are_refused(tmp_path):
    subject, _ = identity()
    with pytest.raises(UserError, match="come out as 3 x 6 x 6, but colours declares 3 x 4 x 4"):
        extract(subject, colours(4, 6, 6)[0], folder=tmp_path)


def test_a_batch_size_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="batch size is 0"):
        extract(identity()[0], colours()[0], folder=tmp_path, batch_size=0)


@pytest.mark.parametrize("change", [lambda _: small_vit(seed=1), Lesion((2,)), Lesion((1,))], ids=["weights", "a", "b"])
def test_an_extractor_of_another_model_is_refused(tmp_path, change):
    subject, images = small_vit(), colours(2, 32, 32)[0]
    found = extract(subject, images, TokenRecipe(width=2), folder=tmp_path)
    with pytest.raises(UserError, match="made for VisionTransformer with other weights, edits or input"):
        extract(change(subject), images, folder=tmp_path, extractor=found.extractor)


def test_an_extractor_of_another_recipe_is_refused(tmp_path):
    subject, images = small_vit(), colours(2, 32, 32)[0]
    found = extract(subject, images, TokenRecipe(width=2), folder=tmp_path)
    again = extract(small_vit(), images, TokenRecipe(width=2), folder=tmp_path, extractor=found.extractor)
    assert isinstance(again, Features)
    with pytest.raises(UserError, match="leave the recipe out"):
        extract(subject, images, TokenRecipe(width=3), folder=tmp_path, extractor=found.extractor)


def test_damaged_features_are_named(tmp_path):
    subject, images = identity()[0], colours()[0]
    found = extract(subject, images, folder=tmp_path)
    with open(tmp_path / found.address / "tokens.npy", "r+b") as file:
        file.truncate(500)
    with pytest.raises(UserError, match=f"{found.address} are damaged"):
        extract(subject, images, folder=tmp_path)


def test_the_trained_deit_reads_its_classes_off_its_features(real_data, tmp_path):
    weights = real_data / "weights" / "deit_tiny_patch16_224_imagenet1k_fp16.safetensors"
    subject = load("timm/deit_tiny_patch16_224", weights=weights)
    images = opened(real_data / "imagenette", limit=20, label="imagenet_label")
    found = extract(subject, images, TokenRecipe(prefix=True), folder=tmp_path)
    assert found.tokens.shape == (20, 197, 192)
    norm, head = subject.module.norm, subject.module.head
    with torch.no_grad():
        logits = head(torch.from_numpy(found.tokens[:, 0].copy()) * norm.weight + norm.bias)
    assert (logits.argmax(1).numpy() == found.targets).mean() >= 0.5  # 70 % over all 1,000 images
