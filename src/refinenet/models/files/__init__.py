"""Model files: safetensors files whose header is a model card, and how they are shared on a hub.

Start reading at `model_file.load` and `save`. `model_card` is what the header says, with the `int8_record`;
`file_checks` and `tensor_files` read untrusted files within bounds; `hub` and `hub_card` share them, under `licences`.
"""
