"""The AlignX router: latent space, fractal and natural calibrators, and their fit on outcomes."""

from mocae.calibration.fractal import FractalCalibrator, FractalScore, fit_fractal
from mocae.calibration.latent import LatentSpace, fit_latent_space
from mocae.calibration.natural import NaturalCalibrator, fit_natural
from mocae.calibration.outcome import CalibrationSet, FittedRouter, RouterSettings, fit_router
from mocae.calibration.router import AlignXRouter, RouterInputs
from mocae.calibration.temperature import fit_temperature

__all__ = [
    "AlignXRouter",
    "CalibrationSet",
    "FittedRouter",
    "FractalCalibrator",
    "FractalScore",
    "LatentSpace",
    "NaturalCalibrator",
    "RouterInputs",
    "RouterSettings",
    "fit_fractal",
    "fit_latent_space",
    "fit_natural",
    "fit_router",
    "fit_temperature",
]
