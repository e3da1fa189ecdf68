"""Azure's services in place of the embedded defaults. `configured` makes them of the settings.

- Storage: `account`, `transport`; `blob_*`, `storage_queue`, `hub_sas`; `home_mirror` with `mirrored`,
  `moving` and `noted`.
- Training and features: `training`, `azure_*`, `pipes_blobs`, `patient_blobs`; `spark_engine`, `livy`.
- Control planes: `control_plane`, `patience`; `data_factory`, `pipeline_run`, `powerbi`; `registries`.
- Who we are there: `credentials`, `secret`, `keyvault`.
"""
