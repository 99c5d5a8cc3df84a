"""Configuration files in the syntax of a shell, as the stock client's are, read without running one.

Understood: assignments (also behind `export` or `readonly`), quotes, `$NAME`, `${NAME}`, `${NAME:-text}`,
`${NAME:+text}`, comments, `if … elif … else … fi` over `[ … ]`, `&&` and `||`, `unset`, and `. FILE`. A file with
anything else in it is refused with its line, because a value that was guessed could be a server, or a key, that nobody
chose. A branch that is not taken may hold what it likes, as long as its words can be told apart.
"""

import re
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ducc.errors import BadInput

_TOKEN = re.compile(
    r"""(?P<blank> [ \t\r]+ | \\\r?\n)
      | (?P<end> \n | ;)
      | (?P<operator> && | \|\| | [&|()<>])
      | '(?P<single> [^']*)'
      | "(?P<double> (?: [^"\\] | \\. )*)"
      | (?P<escaped> \\.)
      | (?P<plain> (?: \$\{[^}]*\} | [^ \t\r\n;&|()<>'"\\] )+ )""",
    re.VERBOSE | re.DOTALL,
)
_VARIABLE = re.compile(
    r"\$(?: (?P<name>[A-Za-z_]\w*) | \{ (?P<braced>[A-Za-z_]\w*) (?: (?P<how>:?[-+]) (?P<text>[^}]*) )? \} )",
    re.VERBOSE,
)
_ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_]\w*)=")
_ESCAPED = re.compile(r'\\([$`"\\])|\\\n')
_DECLARING = ("export", "readonly", "declare", "typeset", "local")
_DEEPEST = 10  # files that include one another

Variables = MutableMapping[str, str]


class BadConfiguration(BadInput):
    """A configuration file, or a parameter in one, can't be used."""


class _Fragment(NamedTuple):
    """A piece of a word. What is *literal* has nothing that stands for something else."""

    text: str
    literal: bool
    quoted: bool


_Word = tuple[_Fragment, ...]


class _Simple(NamedTuple):
    """One command; *operator* says how it hangs on the one before: `&&`, `||`, or not at all."""

    operator: str
    words: list[_Word]


class _Line(NamedTuple):
    number: int
    commands: list[_Simple]


class _Branch:
    """An `if` that is open: is its present part executed, and has one of its parts been?"""

    def __init__(self, outer: bool, holds: bool) -> None:
        self.outer, self.active, self.done = outer, outer and holds, holds

    def otherwise(self, holds: bool) -> None:
        self.active = self.outer and holds and not self.done
        self.done = self.done or holds


def evaluate(file: Path, text: str, variables: Variables, depth: int = 0) -> None:
    """Execute the assignments of *text*, which stands in *file*, upon *variables*. Raises `BadConfiguration`."""
    _Evaluation(file, variables, depth).run(text)


class _Evaluation:
    def __init__(self, file: Path, variables: Variables, depth: int) -> None:
        self._file, self._variables, self._depth = file, variables, depth
        self._number = 0
        self._branches: list[_Branch] = []

    def run(self, text: str) -> None:
        for line in _lines(self._file, text):
            self._number = line.number
            self._line(line.commands)
        if self._branches:
            raise self._refuse("an `if` has no `fi`")

    def _line(self, commands: list[_Simple]) -> None:
        """Execute commands that hang together, or what they say about branches."""
        first = commands[0].words
        keyword = first[0][0].text if len(first[0]) == 1 and not first[0][0].quoted else ""
        rest = [_Simple("", first[1:]), *commands[1:]]
        if keyword == "if":
            outer = self._active
            self._branches.append(_Branch(outer, outer and self._chain(rest)))
        elif keyword in ("elif", "else", "then", "fi") and not self._branches:
            raise self._refuse(f"`{keyword}` without `if`")
        elif keyword == "elif":
            branch = self._branches[-1]
            branch.otherwise(branch.outer and not branch.done and self._chain(rest))
        elif keyword == "fi":
            self._branches.pop()
        elif keyword in ("then", "else"):
            if keyword == "else":
                self._branches[-1].otherwise(True)
            if rest[0].words:
                self._line(rest)
        elif self._active:
            self._chain(commands)

    @property
    def _active(self) -> bool:
        return self._branches[-1].active if self._branches else True

    def _chain(self, commands: list[_Simple]) -> bool:
        holds = True
        for operator, words in commands:
            if operator == ("||" if holds else "&&"):
                continue
            holds = self._execute(words)
        return holds

    def _execute(self, words: Sequence[_Word]) -> bool:
        if not words:
            raise self._refuse("a command is missing")
        if all(map(_is_assignment, words)):
            self._assign(words)
            return True
        name, *rest = map(self._expanded, words)
        if name == "!":
            return not self._execute(words[1:])
        if name in _DECLARING:
            self._assign([word for word in words[1:] if _is_assignment(word)])
        elif name in ("[", "[[", "test"):
            return self._test(rest[:-1] if name != "test" else rest)
        elif name == "unset":
            for one in rest:
                self._variables.pop(one, None)
        elif name in (".", "source") and len(rest) == 1:
            self._include(Path(rest[0]))
        elif name not in (":", "true", "false"):
            raise self._refuse(f"`{name}` is not understood here, only assignments, if … fi and `. FILE`")
        return name != "false"

    def _assign(self, words: Sequence[_Word]) -> None:
        for word in words:
            name = _ASSIGNMENT.match(word[0].text)
            assert name is not None
            value = word[0]._replace(text=word[0].text[name.end() :])
            self._variables[name["name"]] = self._expanded((value, *word[1:]))

    def _include(self, file: Path) -> None:
        if self._depth >= _DEEPEST:
            raise self._refuse("files include one another for ever")
        file = self._file.parent / file
        evaluate(file, read_text(file), self._variables, self._depth + 1)

    def _test(self, words: list[str]) -> bool:
        """What `[ … ]` says; parts are joined by -a and -o, or by && and || in double brackets."""
        match words:
            case []:
                return False
            case ["!", *rest]:
                return not self._test(rest)
            case [text]:
                return bool(text)
            case ["-n", text]:
                return bool(text)
            case ["-z", text]:
                return not text
            case ["-e" | "-f" | "-d" | "-r" | "-s" as what, name]:
                path = Path(name)
                return {"-d": path.is_dir, "-f": path.is_file}.get(what, path.exists)()
            case [left, "=" | "==", right]:
                return left == right
            case [left, "!=", right]:
                return left != right
        raise self._refuse(f"the condition [ {' '.join(words)} ] is not understood here")

    def _expanded(self, word: _Word) -> str:
        return "".join(part.text if part.literal else self._values(part.text) for part in word)

    def _values(self, text: str) -> str:
        def value(found: re.Match[str]) -> str:
            known = self._variables.get(found["name"] or found["braced"])
            how, text = found["how"] or "", found["text"] or ""
            is_set = bool(known) if how.startswith(":") else known is not None
            if how.endswith("+"):
                return self._values(text) if is_set else ""
            return self._values(text) if how and not is_set else known or ""

        rest = _VARIABLE.sub("", text)
        if "$(" in rest or "${" in rest or "`" in rest:
            raise self._refuse(
                f"{text!r} is not understood here: no commands, only $NAME, ${{NAME}} and ${{NAME:-text}}"
            )
        return _VARIABLE.sub(value, text)

    def _refuse(self, reason: str) -> BadConfiguration:
        return _bad(self._file, self._number, reason)


def read_text(file: Path) -> str:
    """A configuration file's text. Raises `BadConfiguration`."""
    try:
        return file.read_text(errors="surrogateescape")
    except OSError as error:
        raise BadConfiguration(f"{file}: {error.strerror}") from error


def _is_assignment(word: _Word) -> bool:
    return not word[0].quoted and _ASSIGNMENT.match(word[0].text) is not None


def _lines(file: Path, text: str) -> Iterator[_Line]:
    """The commands of a file, those that are joined by operators together, each with the number of its line."""
    chain: list[_Simple] = [_Simple("", [])]
    word: list[_Fragment] = []
    last = 1
    for number, kind, token in (*_tokens(file, text), (0, "end", "")):
        if kind not in ("blank", "end", "operator"):
            word.extend(_fragments(kind, token))
            last = number
            continue
        if word:
            chain[-1].words.append(tuple(word))
            word = []
        if kind == "operator":
            if token not in ("&&", "||"):
                raise _bad(file, number, f"`{token}` is not understood here")
            chain.append(_Simple(token, []))
        elif kind == "end" and chain[-1].words:  # else a chain goes on in the next line
            yield _Line(last, chain)
            chain = [_Simple("", [])]


def _tokens(file: Path, text: str) -> Iterator[tuple[int, str, str]]:
    """Number of the line, kind, and text of every token; comments are left out."""
    at, number, in_word = 0, 1, False
    while at < len(text):
        if text[at] == "#" and not in_word:
            at = end if (end := text.find("\n", at)) >= 0 else len(text)
            continue
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            raise _bad(file, number, "a quotation is not closed")
        kind = found.lastgroup
        yield number, kind, found[kind]
        at, in_word = found.end(), kind not in ("blank", "end", "operator")
        number += found[0].count("\n")


def _fragments(kind: str, token: str) -> Iterator[_Fragment]:
    if kind in ("single", "escaped"):
        yield _Fragment(token[1:] if kind == "escaped" else token, literal=True, quoted=True)
        return
    at = 0
    for found in _ESCAPED.finditer(token) if kind == "double" else ():
        yield _Fragment(token[at : found.start()], literal=False, quoted=True)
        yield _Fragment(found[1] or "", literal=True, quoted=True)
        at = found.end()
    yield _Fragment(token[at:], literal=False, quoted=kind == "double")


def _bad(file: Path, number: int, reason: str) -> BadConfiguration:
    return BadConfiguration(f"{file}: line {number}: {reason}")
