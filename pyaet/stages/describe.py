"""All that is told of a structure besides its bonds and rings one by one: distances, angles, coordination, order, defects.

The content is plain numbers for `structure.json`; statistics of atoms with error bars carry 95 % limits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from pyaet.console import Console, Progress
from pyaet.plan import FEWEST_DRAWS, Structure

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from analysis import Atoms, Band, BondRule, LikelyBonds, Network, PossibleNames, RingList
    from analysis.bands import Binned

Numbers = dict[str, Any]
T = TypeVar("T")

SCATTERED_PER_A = np.arange(0.4, 20.01, 0.05)
"""Wave numbers at which the structure factor is told."""
CRYSTALLINE = 7
"""An atom with at least so many neighbours that are ordered as it is stands in a crystal."""
_SHARES = ("ring_statistics.p_", "alternating_share")
_COUNTS = ("q_n", "former_sizes", "ring_statistics.r_n", "ring_statistics.p_n")
"""What there is none of, where a model does not tell it."""
_DIHEDRALS, _TURN_DEG = "dihedral_angles_deg", np.arange(-180.0, 181.0, 10.0)
_RING_SIZES, _COORDINATION = "ring_sizes", "coordination"
_HOMOPOLAR = "defects.homopolar"
MOST_BONDS = 16
"""Atoms with more bonds are counted with those of so many."""
FEWEST_ATOMS = 2
MOST_MISNAMED = 0.2
"""Share of names that may be wrong; nothing is said of the network where more are."""
MANY_ATOMS = 100_000
"""In larger models than this fewer draws do: bands relative to the numbers narrow as models grow."""


@dataclass(frozen=True, eq=False)
class Described:
    """A model, its bonds by `rules`, its rings, and what of it counts."""

    atoms: Atoms
    rules: tuple[BondRule, ...]
    network: Network
    rings: RingList
    settings: Structure
    seed: int = 0
    known_surface: np.ndarray | None = None
    known_former: str | None = None
    console: Console = field(default_factory=lambda: Console(terminal=False))

    @cached_property
    def surface(self) -> np.ndarray:
        import analysis

        if self.known_surface is not None:
            return self.known_surface
        return analysis.surface_atoms(self.atoms.positions_A, self.atoms.cell)

    @cached_property
    def counted(self) -> np.ndarray:
        """Atoms that count in statistics of atoms, bonds and angles."""
        everything = np.ones(len(self.atoms), bool)
        inner = ~self.surface
        return inner if self.settings.surface == "exclude" and inner.any() else everything

    @cached_property
    def edges_A(self) -> np.ndarray | None:
        return None if self.atoms.cell is None else self.atoms.cell.vectors_A

    @property
    def banded(self) -> bool:
        """Whether statistics get limits."""
        return self.draws > 0

    @cached_property
    def draws(self) -> int:
        """Models drawn for limits: none where nothing is known of the errors of atoms."""
        from analysis.ensemble import uncertain

        asked = self.settings.draws
        if asked == 0 or len(self.atoms) < FEWEST_ATOMS or not uncertain(self.atoms):
            return 0
        return min(asked, max(FEWEST_DRAWS, round(asked * MANY_ATOMS / len(self.atoms))))

    def rng(self, use: bytes = b"draws") -> np.random.Generator:
        """Numbers of its own for each use: those of the bare seed may be the very ones that errors were made of in a test."""
        return np.random.default_rng((self.seed, *use))

    @cached_property
    def names(self) -> PossibleNames:
        """Names of the atoms as they and their neighbours make most probable, and which of them may not be right."""
        import analysis

        if not self.banded:
            return analysis.PossibleNames.given(self.atoms)
        return analysis.possible_names(self.atoms, max((rule.reach_A for rule in self.rules), default=0.0))

    @property
    def believed(self) -> Atoms:
        """The atoms by their most probable names."""
        return self.names.likely

    @cached_property
    def otherwise(self) -> list[Atoms]:
        """Per draw, the atoms with names as far from the most probable ones as may be right; none where none may."""
        return self.names.others(self.draws, self.rng(b"names"))

    @cached_property
    def likely(self) -> LikelyBonds:
        """The bonds that the true atoms may have."""
        import analysis

        return analysis.likely_bonds(self.believed, self.rules, self.rng(b"bonds"), self.draws)

    @cached_property
    def former(self) -> str | None:
        """The element that forms the network; models drawn anew keep it, as their numbers would else be of different things."""
        import analysis

        return self.known_former or analysis.formers_of(self.network, self.atoms.symbols)

    @cached_property
    def cells(self) -> Numbers:
        """Voronoi cells by name."""
        return _cells(self.atoms)

    @property
    def renamed(self) -> dict[str, str]:
        """Names that neighbours give to atoms instead of their own, by index."""
        own, believed = np.array(self.atoms.symbols), np.array(self.believed.symbols)
        return {str(k): str(believed[k]) for k in np.flatnonzero(own != believed)}

    @property
    def misnamed(self) -> bool:
        """Whether any of the names that are believed may be wrong, as far as that is not below the 5 % that limits leave out."""
        return bool(self.otherwise) or float(np.nansum(1 - self.believed.species_probability)) > 0.05

    @cached_property
    def unsure(self) -> str:
        """Why statistics of the network get no limits; empty where they do."""
        from analysis.likely import MOST_UNSURE

        if not self.banded:
            return "the atoms have no error bars, or draws = 0"
        doubted = float(np.nansum(1 - self.believed.species_probability)) / len(self.atoms)
        if doubted > MOST_MISNAMED:
            return f"by their probabilities {doubted:.0%} of the names are wrong; leave such atoms out"
        if self.likely.unsure > MOST_UNSURE:
            return "errors of the atoms leave too many bonds in doubt; give bonds other limits"
        return ""

    @property
    def sure(self) -> bool:
        """Whether so many bonds and names are sure that statistics of the network get limits."""
        return not self.unsure

    @cached_property
    def followed(self) -> Network:
        """Bonds whose lengths and angles are told: with error bars the likeliest ones, since errors do not choose them."""
        return self.likely.likeliest() if self.sure else self.network

    @cached_property
    def bands(self) -> dict[str, Band]:
        """Limits of all that bonds and rings tell, by the path of its keys."""
        if not self.sure:
            return {}
        drawn = self.again(self.atoms, self.network)

        def numbers(model: Described) -> dict[str, Any]:
            chains = {_DIHEDRALS: _dihedrals(model)} if self.misnamed else {}
            return dict(_flat(_numbers(model) | chains))

        measured = numbers(drawn)
        none = {path: 0 for path in measured if path.startswith(_COUNTS)}

        def told(atoms: Atoms, network: Network) -> dict[str, Any]:
            nonlocal drawn
            drawn = drawn.again(atoms, network)
            return none | numbers(drawn)

        calls = 2 + 3 * self.draws
        if self.otherwise:
            calls += 1 + 3 * self.draws + len(set(map(id, self.otherwise)))
        with self.console.task("bonds and rings") as progress:
            limits = self.by_names(self.likely, _counted_calls(told, progress, calls))
        return {
            path: replace(band, value=np.asarray(measured.get(path, band.value), np.float64))
            for path, band in (limits | _like_pairs(self)).items()
        }

    def by_names(
        self, likely: LikelyBonds, look: Callable[[Atoms, Network], Mapping[str, ArrayLike]]
    ) -> dict[str, Band]:
        """Limits of statistics of the network that hold by the most probable names and where some of the given ones are right."""
        import analysis

        readings = [None, self.otherwise] if self.otherwise else [None]
        return _either(analysis.network_bands(self.believed, likely, look, self.rng(), named) for named in readings)

    def again(self, atoms: Atoms, network: Network) -> Described:
        """The same particle with atoms and bonds drawn anew, without limits of its own; rings are looked for where bonds changed."""
        import analysis

        own, rings = self.settings, self.rings
        if network is not self.network:
            rings = analysis.rings(network, definition=own.definition, min_size=own.min_size, max_size=own.max_size)
        settings = own.model_copy(update={"draws": 0})
        drawn = replace(self, atoms=atoms, network=network, rings=rings, settings=settings)
        return replace(drawn, known_surface=self.surface, known_former=self.former)


def _counted_calls(look: Callable[..., T], progress: Progress, total: int) -> Callable[..., T]:
    """A function that shows how many times of `total` it has been called."""
    done = itertools.count(1)

    def looked(*model: Any) -> T:
        found = look(*model)
        progress(next(done), total, np.nan)
        return found

    return looked


def describe(model: Described) -> Numbers:
    """Everything of `structure.json` for one model."""
    names, number = np.unique(np.array(model.atoms.symbols, dtype=np.str_), return_counts=True)
    told: Numbers = {
        "atoms": dict(zip(names.tolist(), number.tolist(), strict=True)),
        "surface_atoms": int(model.surface.sum()),
        "counted": "all atoms" if model.counted.all() else "atoms below the surface",
    }
    parts: tuple[Callable[[Described], Numbers], ...] = (_distances, _bonded, _counts, _rings, _order, _limits)
    for part in parts:
        told |= part(model) if len(model.atoms) >= FEWEST_ATOMS else {}
    told |= model.cells if len(model.atoms) >= FEWEST_ATOMS else {}
    return told


def on_bins_of(told: Numbers, model: Described, other: Numbers) -> Numbers:
    """What was told of a model, its histograms on the bins that another has of the same kind; one with limits keeps its own."""
    for key, kinds in _lengths_and_angles(model, model.atoms).items():
        for kind, own in kinds.items():
            if kind in other.get(key, {}) and "low" not in told[key][kind]:
                edges = other[key][kind]["edges"]
                told[key][kind] |= {"edges": edges, "value": np.histogram(np.clip(own, edges[0], edges[-1]), edges)[0]}
    return told


def _lengths_and_angles(
    model: Described, atoms: Atoms, network: Network | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Bond lengths and angles by kind, of `atoms` with the bonds of the model, or others."""
    from analysis import bond_angles, bond_lengths

    given = (network or model.network, atoms.positions_A, atoms.symbols, atoms.cell, model.counted)
    return {"bond_lengths_A": bond_lengths(*given), "bond_angles_deg": bond_angles(*given)}


def _distances(model: Described) -> Numbers:
    import analysis
    from analysis.bands import pair_bands

    atoms = model.atoms
    pairs = analysis.pair_distribution(atoms.positions_A, atoms.symbols, cell=atoms.cell)
    g: Numbers = {"-".join(pair): {"value": np.round(values, 5)} for pair, values in pairs.g.items()}
    if model.banded:

        def limits(named: Atoms) -> dict[str, Band]:
            seen = analysis.pair_distribution(named.positions_A, named.symbols, cell=named.cell)
            return {"-".join(pair): band for pair, band in pair_bands(named, seen, model.rng(), model.draws).items()}

        bands = _either(map(limits, [model.believed, *model.otherwise[:1]]))
        g = {
            pair: told | _of_band(replace(bands[pair], **told), 5) if pair in bands else told
            for pair, told in g.items()
        }
    return {
        "pair_distribution": {"r_A": np.round(pairs.r_A, 5), "g": g},
        "structure_factor": _scattering(model),
    }


def _scattering(model: Described) -> Numbers:
    if "X" in model.atoms.symbols:
        return {}
    total = {kind: np.round(value, 5) for kind, value in _scattered(model.atoms).items()}
    return {"q_per_A": np.round(SCATTERED_PER_A, 4), "S": total}


def _scattered(atoms: Atoms, left: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """S(q) per radiation. left: per element, the share of amplitudes that errors have left, by which those of pairs are divided."""
    from analysis.order import faber_ziman_weights, structure_factor

    kinds: tuple[Literal["xray", "neutron", "electron"], ...] = ("xray", "neutron", "electron")
    q = SCATTERED_PER_A
    partial = structure_factor(atoms.positions_A, atoms.symbols, q, weights="equal", cell=atoms.cell).partial
    if left is not None:
        partial = {pair: 1 + (value - 1) / (left[pair[0]] * left[pair[1]]) for pair, value in partial.items()}
    total: dict[str, np.ndarray] = {}
    for kind in kinds:
        weights = faber_ziman_weights(atoms.symbols, q, kind)
        total[kind] = np.asarray(sum(weight * partial[pair] for pair, weight in weights.items()))
    return total


def _scattering_limits(model: Described) -> dict[str, Numbers]:
    """Limits of S(q): errors of variance v per axis leave exp(-q² v / 2) of an atom's amplitude, and what is left scatters.

    A finite range of distances and wrong names leave something of errors. As much is seen in atoms drawn anew once what errors
    leave of them is corrected twice; it is taken off as far as such a correction does not drown it in noise.
    """
    if "X" in model.atoms.symbols:
        return {}
    bands = _either(_scattering_bands(model, atoms) for atoms in [model.believed, *model.otherwise[:1]])
    own = _scattered(model.atoms)
    return {
        f"structure_factor.{kind}": {"value": own[kind], "low": band.low, "high": band.high}
        for kind, band in bands.items()
    }


def _scattering_bands(model: Described, atoms: Atoms) -> dict[str, Band]:
    """Bands of S(q) per radiation by the names of these atoms."""
    from scipy.stats import t

    from analysis import Band, draws

    variance = np.nan_to_num(np.trace(atoms.covariance_A2, axis1=1, axis2=2) / 3)
    names = np.array(atoms.symbols)
    left = {
        element: np.exp(-0.5 * SCATTERED_PER_A[:, None] ** 2 * variance[names == element]).mean(axis=1).clip(1e-6)
        for element in atoms.elements
    }
    twice = {element: amplitude**2 for element, amplitude in left.items()}
    drawn = [one for one in draws(atoms, model.draws, model.rng()) if one.elements == atoms.elements]
    if len(drawn) < 2:
        return {}
    best = _scattered(atoms, left)
    spreads = [_scattered(one, left) for one in drawn]
    again = [_scattered(one, twice) for one in drawn]
    kept = np.mean(list(twice.values()), axis=0)
    far = float(t.ppf(0.975, len(drawn) - 1)) * np.sqrt(1 + 1 / len(drawn))
    spread = {kind: far * np.std([one[kind] for one in spreads], axis=0, ddof=1) for kind in best}
    best = {kind: each - kept * (np.mean([one[kind] for one in again], axis=0) - each) for kind, each in best.items()}
    return {kind: Band(one, one, one - spread[kind], one + spread[kind]) for kind, one in best.items()}


def _bonded(model: Described) -> Numbers:
    moments, members = _moments(model)
    own = _lengths_and_angles(model, model.atoms)
    told: Numbers = {}
    for key, kinds in _histograms(model).items():
        told[key] = {}
        for kind, found in kinds.items():
            if model.misnamed and f"{key}.{kind}" in members:
                found = _as_many(found, members[f"{key}.{kind}"])
            values = np.clip(own[key].get(kind, np.zeros(0)), found.edges[0], found.edges[-1])
            measured = {"value": np.histogram(values, found.edges)[0]}
            told[key][kind] = _binned(found) | measured | moments.get(f"{key}.{kind}", {})
    return told | {
        "bonds": len(model.network),
        _DIHEDRALS: _dihedral_histograms(model),
        _COORDINATION: {
            element: {
                "mean": found["mean"],
                "counts": _counted(model, f"{_COORDINATION}.{element}.counts", found["counts"]),
            }
            for element, found in _degrees(model).items()
        },
    }


def _histograms(model: Described) -> dict[str, dict[str, Binned]]:
    """Histograms of lengths and angles by kind, with limits where bonds are sure; kinds that are most probably none have none."""
    from analysis.bands import angle_bands, length_bands

    found: dict[str, dict[str, Binned]] = {}
    for key, bands in (("bond_lengths_A", length_bands), ("bond_angles_deg", angle_bands)):
        found[key] = bands(model.atoms, model.network, model.rng(), count=0, of=model.counted)
        if model.sure:
            given = model.believed, model.followed, model.rng()
            found[key] |= bands(*given, count=model.draws, of=model.counted)
    return found


def _as_many(found: Binned, members: Band) -> Binned:
    """A histogram whose limits reach as many members as there may be by names that are in doubt."""
    own = max(float(found.counts.value.sum()), 1.0)
    low, high = min(1.0, float(members.low) / own), max(1.0, float(members.high) / own)
    counts = replace(found.counts, low=found.counts.low * max(low, 0.0), high=found.counts.high * high)
    return replace(found, counts=counts.outwards())


def _dihedral_histograms(model: Described) -> dict[str, Numbers]:
    """Histograms of dihedral angles, with limits: of chains that are followed, or where names are in doubt of numbers in each bin."""
    from analysis.bands import dihedral_bands

    told = {chain: {"edges": _TURN_DEG, "value": counts} for chain, counts in _dihedrals(model).items()}
    if not model.sure:
        return told
    if model.misnamed:
        paths = {chain: f"{_DIHEDRALS}.{chain}" for chain in told}
        bands = {chain: model.bands[path] for chain, path in paths.items() if path in model.bands}
    else:
        of, count = model.counted, model.draws
        bands = dihedral_bands(model.believed, model.followed, model.rng(), _TURN_DEG, count=count, of=of)
    limits = {chain: band.outwards() for chain, band in bands.items()}
    return {
        chain: one | ({"low": limits[chain].low, "high": limits[chain].high} if chain in limits else {})
        for chain, one in told.items()
    }


def _counted(model: Described, path: str, value: np.ndarray) -> Numbers:
    """Numbers of things, with limits where the model has them."""
    band = model.bands.get(path)
    return {"value": value} if band is None else _of_band(band.outwards())


def _moments(model: Described) -> tuple[dict[str, Numbers], dict[str, Band]]:
    """Mean and spread of lengths and angles by kind, with limits, and how many there are.

    What errors added to the spread is taken from its best value.
    """
    from analysis import Band

    def of_bonds(atoms: Atoms, network: Network) -> dict[str, np.ndarray]:
        values = _lengths_and_angles(model, atoms, network)
        return {
            f"{key}.{kind}": np.array([own.mean(), own.var(), ((180 - own) ** 2).mean(), len(own)])
            for key in values
            for kind, own in values[key].items()
        }

    found, members, limits = {}, {}, {}
    measured = {path: Band(value, value, value, value) for path, value in of_bonds(model.atoms, model.network).items()}
    if model.sure:
        limits = model.by_names(model.likely, of_bonds)
    limits = {path: replace(band, value=measured[path].value) for path, band in limits.items() if path in measured}
    for path, band in (measured | limits).items():
        mean, variance, from_straight, members[path] = (
            Band(*part) for part in zip(band.value, band.best, band.low, band.high, strict=True)
        )
        if model.sure and path not in limits:
            members[path] = replace(members[path], low=np.zeros(()))
        if path.startswith("bond_angles_deg"):
            # Errors bend straight angles, by the root of their variance; the mean may be as far up as the mean square allows.
            straight = 180 - np.sqrt(np.maximum(from_straight.low, 0))
            mean = replace(mean, high=np.minimum(np.maximum(mean.high, straight), 180.0))
        spread = Band(
            *(np.sqrt(np.maximum(each, 0)) for each in (variance.value, variance.best, variance.low, variance.high))
        )
        found[path] = {"mean": _of_band(mean, 5), "spread": _of_band(spread, 5)}
    return found, members


def _counts(model: Described) -> Numbers:
    import analysis

    atoms, network, of = model.atoms, model.network, model.counted
    near = analysis.bonds(atoms.positions_A, atoms.symbols, analysis.homopolar_rules(model.rules), atoms.cell)
    found = analysis.defects(
        network, atoms, expected=model.settings.coordination, homopolar=near if len(near) else None, of=of
    )
    former = model.former
    alloy = analysis.warren_cowley(network, atoms.symbols, of) if len(network) else {}
    return {
        "defects": {"expected": found.expected}
        | {name: getattr(found, name).tolist() for name in ("under", "over", "dangling", "homopolar")},
        "names_by_neighbours": model.renamed,
        "former": former,
        "q_n": _keyed(analysis.q_n(network, atoms.symbols, former, of)) if former else {},
        "short_range_order": {"-".join(pair): value for pair, value in alloy.items()},
    }


def _either(found: Iterable[dict[str, Band]]) -> dict[str, Band]:
    """Limits that hold by whichever names are right: bands of the first, as far as those of others reach."""
    first, *others = [*found] or [{}]
    wide = dict(first)
    for other in others:
        for path, band in other.items():
            own = wide.get(path, band)
            wide[path] = replace(own, low=np.fmin(own.low, band.low), high=np.fmax(own.high, band.high))
    return wide


def _like_pairs(model: Described) -> dict[str, Band]:
    """Limits of how many like atoms are as near as bonded ones, by the chances of their distances as bonds have them."""
    import analysis

    near = analysis.homopolar_rules(model.rules)
    if not near:
        return {}
    rules = [*near, *(rule for rule in model.rules if rule.a == rule.b and rule.a in model.atoms.elements)]
    likely = analysis.likely_bonds(model.believed, rules, model.rng(b"like pairs"), model.draws)

    def counted(_: Atoms, network: Network) -> dict[str, int]:
        return {_HOMOPOLAR: int(model.counted[network.pairs].all(axis=1).sum())}

    return model.by_names(likely, counted)


def _rings(model: Described) -> Numbers:
    import analysis

    rings = model.rings
    told = analysis.ring_statistics(rings, len(model.atoms), model.counted)
    former = model.former
    return {
        _RING_SIZES: _ring_sizes(model),
        "ring_statistics": {name: _keyed(value) for name, value in asdict(told).items() if name != "count"},
        "alternating_share": _keyed(analysis.alternating_share(rings, model.atoms.symbols)),
        "former_sizes": _keyed(analysis.former_sizes(rings, model.atoms.symbols, former)) if former else {},
        "ring_shape": _shapes(model),
    }


def _ring_sizes(model: Described) -> dict[str, Numbers]:
    """Number of rings by size, with limits: those of sizes that there are, or may be."""
    found: dict[str, Numbers] = {str(size): {"value": count} for size, count in model.rings.sizes.items()}
    for size in range(model.settings.min_size, model.settings.max_size + 1):
        band = model.bands.get(f"{_RING_SIZES}.{size}")
        if band is not None and (band.value > 0 or band.outwards().high > 0):
            found[str(size)] = {name: float(getattr(band.outwards(), name)) for name in ("value", "low", "high")}
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def _shapes(model: Described) -> Numbers:
    import analysis

    shapes = analysis.ring_shapes(model.rings, model.atoms.positions_A, model.edges_A)
    told, begin = {}, 0
    for size, count in model.rings.sizes.items():
        own = slice(begin, begin + count)
        names = ("roundness", "out_of_plane_A", "radius_A")
        told[str(size)] = {name: round(float(getattr(shapes, name)[own].mean()), 4) for name in names}
        begin += count
    return told


def _order(model: Described) -> Numbers:
    from analysis import order

    atoms, network, of = model.atoms, model.network, model.counted
    names = np.array(atoms.symbols)
    told: Numbers = {}
    for l in (4, 6):
        q = order.bond_order(network, atoms.positions_A, atoms.cell, l=l)
        chosen = of & np.isfinite(q)
        told[f"q{l}"] = {
            element: round(float(q[chosen & (names == element)].mean()), 4)
            for element in atoms.elements
            if (chosen & (names == element)).any()
        }
    solid = order.solid_bonds(network, atoms.positions_A, atoms.cell)
    told["solid_like_share"] = round(float((np.nan_to_num(solid)[of] >= CRYSTALLINE).mean()), 4) if of.any() else 0.0
    return {"bond_order": told}


def _cells(atoms: Atoms) -> Numbers:
    from analysis import order

    return {"voronoi": order.motifs(order.voronoi(atoms.positions_A, atoms.cell))}


def _limits(model: Described) -> Numbers:
    """95 % limits of all that is one number, by the path of its keys, and of structure factors."""
    from analysis import band_of

    if not model.banded:
        return {}
    none = {path: 0 for path, _ in _flat(model.cells)}

    def cells(atoms: Atoms) -> Numbers:
        return none | dict(_flat(model.cells if atoms is model.atoms else _cells(atoms)))

    with model.console.task("Voronoi cells") as progress:
        look = _counted_calls(cells, progress, 1 + 2 * model.draws)
        bands = model.bands | band_of(model.atoms, look, model.rng(), model.draws)
    limits = {
        path: _possible(path, band)
        for path, band in bands.items()
        if not path.startswith((_RING_SIZES, _DIHEDRALS)) and np.isfinite(band.low).all() and np.ndim(band.low) == 0
    }
    return {"limits": limits | _scattering_limits(model)}


def _numbers(model: Described) -> Numbers:
    """All that bonds and rings tell, as tables of numbers and arrays of fixed shapes."""
    sizes = model.rings.sizes
    every = range(model.settings.min_size, model.settings.max_size + 1)
    told = _counts(model) | _rings(model) | _order(model)
    told["defects"] = {name: len(value) for name, value in told["defects"].items() if name != "expected"}
    return told | {
        "bonds": len(model.network),
        _RING_SIZES: {str(size): sizes.get(size, 0) for size in every},
        _COORDINATION: _degrees(model),
    }


def _degrees(model: Described) -> dict[str, Numbers]:
    """Numbers of bonds per element, of the atoms that count: their mean, and how many atoms have 0, 1, … of them."""
    names, degree = np.array(model.atoms.symbols), model.network.degree
    chosen = {element: degree[(names == element) & model.counted] for element in model.atoms.elements}
    return {
        element: {
            "mean": float(own.mean()), "counts": np.bincount(np.minimum(own, MOST_BONDS), minlength=MOST_BONDS + 1)
        }
        for element, own in chosen.items()
        if own.size
    }  # fmt: skip


def _flat(told: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number or array of a table of tables, with the path of its keys joined by dots."""
    for key, value in told.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        elif isinstance(value, int | float | np.ndarray):
            yield path + key, value


def _possible(path: str, band: Band) -> Numbers:
    """Limits of a number; what counts or shares is not negative, and no share more than 1."""
    least = -np.inf if path.startswith("short_range_order") else 0.0
    most = 1.0 if path.startswith(_SHARES) or path.endswith(("roundness", "share")) else np.inf
    return {name: np.clip(getattr(band, name), least, most) for name in ("value", "low", "high")}


def _keyed(values: Mapping[Any, Any]) -> Numbers:
    return {str(key): value for key, value in values.items()}


def _of_band(band: Band, digits: int = 2) -> Numbers:
    """A band as lists; without limits where it has none."""
    told = {name: np.round(getattr(band, name), digits) for name in ("value", "best", "low", "high")}
    known = np.isfinite(band.low).all() and np.isfinite(band.high).all()
    return told if known and np.any((band.high > band.low) | (band.low != band.value)) else {"value": told["value"]}


def _binned(found: Any) -> Numbers:
    return {"edges": np.round(found.edges, 5), **_of_band(found.counts)}


def _dihedrals(model: Described) -> dict[str, np.ndarray]:
    """Number of dihedral angles in steps of 10°, per chain of elements."""
    from analysis import dihedral_angles

    atoms = model.atoms
    angles = dihedral_angles(model.network, atoms.positions_A, atoms.symbols, atoms.cell, model.counted)
    return {chain: np.histogram(values, _TURN_DEG)[0] for chain, values in angles.items()}
