"""The AlignX router: latent space, fractal and natural calibrators, and their fit on outcomes."""

from mocae.calibration.fractal import FractalCalibrator, fit_fractal
from mocae.calibration.latent import LatentSpace, fit_latent_space
from mocae.calibration.natural import NaturalCalibrator, fit_natural
from mocae.calibration.novelty import Novelty, fit_discount, fit_novelty
from mocae.calibration.outcome import CalibrationSet, FittedRouter, RouterSettings, fit_router
from mocae.calibration.output import AcceptedAnswer, OutputCalibrators, fit_output_calibrators
from mocae.calibration.router import ROUTER_VERSION, AlignXRouter, Beliefs, CalibrationMethod, RouterInputs
from mocae.calibration.temperature import fit_temperature

__all__ = [
    "ROUTER_VERSION",
    "AcceptedAnswer",
    "AlignXRouter",
    "Beliefs",
    "CalibrationMethod",
    "CalibrationSet",
    "FittedRouter",
    "FractalCalibrator",
    "LatentSpace",
    "NaturalCalibrator",
    "Novelty",
    "OutputCalibrators",
    "RouterInputs",
    "RouterSettings",
    "fit_discount",
    "fit_fractal",
    "fit_latent_space",
    "fit_natural",
    "fit_novelty",
    "fit_output_calibrators",
    "fit_router",
    "fit_temperature",
]
