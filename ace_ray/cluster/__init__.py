"""The cluster form: a local head with token authentication, the doctor, and how to submit a job."""
