"""Atoms from electron counts by maximum likelihood: all atoms together, on the counts as the detector gave them.

    k_t(x) ~ Poisson( ground_t + Σ_a A P_t(x − P R_t r_a) )

Positions, the brightness of every element, backgrounds, defocus, blur, and the shift and brightness of every tilt are fitted; atoms
come and go by what they add to the likelihood of all counts. No denoised image and no volume stands between the counts and
the atoms; a traced volume only tells where to start. For counts there is no unbiased method with smaller errors: their bound
(Cramér and Rao) is stated with every atom.

    psf      the image of an atom          kernels  compiled sums over the pixels of an atom
    model    expected counts, misfit       places   all positions by L-BFGS
    nuisance everything else               local    one atom at a time, exactly
    search   atoms added and dropped       result   errors, worth and element of every atom
    limit    the errors before an experiment
    halves   two fits that share no count  naming   which element is which brightness
    cuda     the sums of kernels on a GPU
"""

from __future__ import annotations

from analysis.likelihood.fit import Free, fit_counts
from analysis.likelihood.halves import Halves, fit_halves
from analysis.likelihood.limit import bound
from analysis.likelihood.psf import Optics
from analysis.likelihood.result import Fitted

__all__ = ["Fitted", "Free", "Halves", "Optics", "bound", "fit_counts", "fit_halves"]
