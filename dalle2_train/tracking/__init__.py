"""The only room that knows MLflow: runs with metrics and pictures, and the registry of models."""

import os

# The users' own settings win. MLflow reports usage to its makers unless told not to, and retries a refused connection
# for four minutes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
