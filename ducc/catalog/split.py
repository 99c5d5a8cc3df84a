"""Where to nest: which directories of a tree become catalogs of their own.

Small catalogs are quickly fetched, quickly rewritten and often shared; each costs a row, an object and a file
descriptor. The choice depends on nothing but the tree, so equal trees are split alike. `docs/decisions/splitting.md`
has the measurements behind the weights.
"""

from dataclasses import dataclass

from ducc.catalog.tree import Directory, directories


@dataclass(frozen=True, slots=True)
class SplitPolicy:
    """Weights in rows.

    A catalog above *heavy* gives away its heaviest directories, none below *light*, until it is light enough; above
    *limit* it gives away smaller ones too. Directories that were nested before stay so unless they fell below
    *light*; with *keep_all* they stay whatever they weigh.
    """

    heavy: int = 2_000
    light: int = 250
    limit: int = 100_000
    keep_all: bool = False


def choose_nested(root: Directory, policy: SplitPolicy) -> set[int]:
    """Return the `id()` of every directory that should be the root of a nested catalog; *root* is not among them."""
    nested: set[int] = set()
    weights: dict[int, int] = {}
    for _, directory in reversed(list(directories(root))):
        weight = 1 + len(directory.children)
        candidates = []
        for name, child in directory.children.items():
            if type(child) is not Directory:
                continue
            rows = weights[id(child)]
            if child.nested and (policy.keep_all or rows >= policy.light):
                nested.add(id(child))
            elif rows > 1:
                weight += rows - 1
                candidates.append((-rows, name, child))
        weights[id(directory)] = _relieve(weight, sorted(candidates, key=lambda one: one[:2]), policy, nested)
    return nested


def _relieve(weight: int, candidates: list[tuple[int, bytes, Directory]], policy: SplitPolicy, nested: set[int]) -> int:
    """Nest *candidates*, heaviest first, until *weight* is borne; return the weight that remains."""
    for negative_rows, _, child in candidates:
        bearable = policy.heavy if -negative_rows >= policy.light else policy.limit
        if weight <= bearable:
            break
        nested.add(id(child))
        weight += negative_rows + 1
    return weight
