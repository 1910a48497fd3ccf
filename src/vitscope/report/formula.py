"""Converts the LaTeX that docstrings use to MathML, which every current browser draws."""

import re
from html import escape

_TOKEN = re.compile(
    r"\\(?:text|mathrm|operatorname|mathcal|mathbb)\{[^}]*\}|\\[a-zA-Z]+|\\.|\d+(?:\.\d+)?|\S", re.DOTALL
)
_LETTERS: dict[str, str] = {
    f"\\{name}": letter
    for name, letter in (
        ("alpha", "α"),
        ("beta", "β"),
        ("gamma", "γ"),
        ("delta", "δ"),
        ("epsilon", "ε"),
        ("zeta", "ζ"),
        ("eta", "η"),
        ("theta", "θ"),
        ("kappa", "κ"),
        ("lambda", "λ"),
        ("mu", "μ"),
        ("pi", "π"),
        ("rho", "ρ"),
        ("sigma", "σ"),
        ("tau", "τ"),
        ("phi", "φ"),
        ("chi", "χ"),
        ("omega", "ω"),
        ("Delta", "Δ"),
        ("Sigma", "Σ"),
        ("ell", "ℓ"),
        ("infty", "∞"),
        ("nabla", "∇"),
        ("top", "⊤"),
        ("ldots", "…"),
        ("Re", "ℜ"),
    )
}
_OPERATORS: dict[str, str] = {
    "-": "−",
    r"\langle": "⟨",
    r"\rangle": "⟩",
    r"\le": "≤",
    r"\ge": "≥",
    r"\ne": "≠",
    r"\in": "∈",
    r"\cdot": "⋅",
    r"\times": "×",
    r"\to": "→",
    r"\leftarrow": "←",
    r"\approx": "≈",
    r"\sum": "∑",
    r"\prod": "∏",
    r"\|": "‖",
    r"\lVert": "‖",
    r"\rVert": "‖",
    r"\pm": "±",
    r"\propto": "∝",
    r"\{": "{",
    r"\}": "}",
}
_FUNCTIONS = {f"\\{name}": name for name in ("log", "exp", "min", "max", "cos", "sin", "det", "arg", "dim")}
_SPACES = {r"\,": 0.17, r"\;": 0.28, "\\ ": 0.3, r"\quad": 1.0, r"\qquad": 2.0}
_ACCENTS = {r"\bar": "¯", r"\hat": "^", r"\tilde": "~"}
_FENCES = ("|", "(", ")", "[", "]", r"\|", r"\lVert", r"\rVert")
_IGNORED = (r"\left", r"\right", r"\textstyle", r"\displaystyle",
            *(rf"\{size}{side}" for size in ("big", "Big") for side in ("", "l", "r")))  # fmt: skip
_WORDS = {r"\text{": "mtext", r"\mathrm{": "mi", r"\operatorname{": "mi"}
_LETTERFORMS = {r"\mathcal{F}": "ℱ", r"\mathbb{E}": "𝔼", r"\mathbb{R}": "ℝ", r"\mathcal{L}": "ℒ"}


def mathml(latex: str, display: str) -> str:
    """A formula as a ``<math>`` element, ``display`` being ``block`` or ``inline``.

    Limits of sums are set beside the sign, which reads well in every font. A formula with an unknown command stays as
    it was written, in ``<code>``.
    """
    try:
        body = _FormulaReader(_TOKEN.findall(latex)).row(None)
    except (KeyError, IndexError):
        return f'<code class="formula">{escape(latex)}</code>'
    return f'<math display="{display}"><mrow>{body}</mrow></math>'


class _FormulaReader:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens[::-1]

    def row(self, end: str | None) -> str:
        """Everything up to ``end``, or up to the end of the formula."""
        parts: list[str] = []
        while self._tokens:
            token = self._tokens.pop()
            if token == end:
                return "".join(parts)
            if token not in _IGNORED:
                parts.append(self._with_scripts(token))
        if end is not None:
            raise IndexError(end)
        return "".join(parts)

    def _with_scripts(self, token: str) -> str:
        base, scripts = self._atom(token), {}
        while self._tokens and self._tokens[-1] in ("_", "^"):
            place = self._tokens.pop()
            scripts[place] = self._argument()
        gap = '<mspace width="0.17em"/>' if token in _FUNCTIONS and self._tokens[-1:] not in (["("], [r"\{"]) else ""
        if not scripts:
            return base + gap
        if len(scripts) == 2:
            return f"<msubsup>{base}{scripts['_']}{scripts['^']}</msubsup>{gap}"
        name = "msub" if "_" in scripts else "msup"
        return f"<{name}>{base}{next(iter(scripts.values()))}</{name}>{gap}"

    def _argument(self) -> str:
        token = self._tokens.pop()
        if token.isdigit() and len(token) > 1:  # LaTeX takes one digit: \frac12 is a half
            self._tokens.append(token[1:])
            token = token[0]
        return self._atom(token)

    def _atom(self, token: str) -> str:
        if token == "{":
            return f"<mrow>{self.row('}')}</mrow>"
        if token in (r"\frac", r"\tfrac"):
            return f"<mfrac>{self._argument()}{self._argument()}</mfrac>"
        if token == r"\sqrt":
            return f"<msqrt>{self._argument()}</msqrt>"
        if token in _ACCENTS:
            return f'<mover accent="true">{self._argument()}<mo stretchy="false">{_ACCENTS[token]}</mo></mover>'
        return _leaf(token)


def _leaf(token: str) -> str:
    for start, name in _WORDS.items():
        if token.startswith(start):
            upright = ' mathvariant="normal"' if name == "mi" else ""
            return f"<{name}{upright}>{escape(token[len(start) : -1])}</{name}>"
    if token in _LETTERFORMS:
        return f"<mi>{_LETTERFORMS[token]}</mi>"
    if token in _SPACES:
        return f'<mspace width="{_SPACES[token]}em"/>'
    if token in _FUNCTIONS:
        return f"<mi>{_FUNCTIONS[token]}</mi>"
    if token in _LETTERS or token.isalpha():
        return f"<mi>{_LETTERS.get(token, token)}</mi>"
    if token[0].isdigit():
        return f"<mn>{token}</mn>"
    if token.startswith("\\") and token not in _OPERATORS:
        raise KeyError(token)
    fence = ' stretchy="false" lspace="0" rspace="0"' if token in _FENCES else ""
    return f"<mo{fence}>{escape(_OPERATORS.get(token, token))}</mo>"
