"""Artifacts in the forms that other software reads, one file a format."""

from mocae.export.bundle import Bundle, mixture_vector, read_export, whole_folder, write_manifest
from mocae.export.chooser import Chooser, load_chooser
from mocae.export.gguf import export_gguf
from mocae.export.hub import pull, push
from mocae.export.proof import prove_export
from mocae.export.vllm import export_vllm, fit_code_book
from mocae.export.weights import export_lorax, export_merged, export_peft, merged_adapters

__all__ = [
    "Bundle",
    "Chooser",
    "export_gguf",
    "export_lorax",
    "export_merged",
    "export_peft",
    "export_vllm",
    "fit_code_book",
    "load_chooser",
    "merged_adapters",
    "mixture_vector",
    "prove_export",
    "pull",
    "push",
    "read_export",
    "whole_folder",
    "write_manifest",
]
