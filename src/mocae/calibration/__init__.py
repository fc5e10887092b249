"""The AlignX router: latent space, fractal and natural calibrators, and their fit on outcomes."""

from mocae.calibration.chances import AffineChances, CalibrationMethod, Chances, IsotonicChances, fit_chances
from mocae.calibration.fractal import FractalCalibrator, FractalScore, fit_fractal
from mocae.calibration.latent import LatentSpace, fit_latent_space
from mocae.calibration.natural import NaturalCalibrator, fit_natural
from mocae.calibration.outcome import CalibrationSet, FittedRouter, RouterSettings, fit_router
from mocae.calibration.output import AcceptedAnswer, OutputCalibrators, OutputTraining, fit_output_calibrators
from mocae.calibration.router import AlignXRouter, Beliefs, RouterInputs
from mocae.calibration.temperature import fit_temperature

__all__ = [
    "AcceptedAnswer",
    "AffineChances",
    "AlignXRouter",
    "Beliefs",
    "CalibrationMethod",
    "CalibrationSet",
    "Chances",
    "FittedRouter",
    "FractalCalibrator",
    "FractalScore",
    "IsotonicChances",
    "LatentSpace",
    "NaturalCalibrator",
    "OutputCalibrators",
    "OutputTraining",
    "RouterInputs",
    "RouterSettings",
    "fit_chances",
    "fit_fractal",
    "fit_latent_space",
    "fit_natural",
    "fit_output_calibrators",
    "fit_router",
    "fit_temperature",
]
