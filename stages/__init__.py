"""The stages of dvc.yaml: read parameters, call the library, write outputs."""
