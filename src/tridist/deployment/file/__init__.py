"""Deployment files: a deployment in YAML.

A whole one, with every section::

    namespace: demo                    # keeps deployments on one server apart
    url: nats://nats.example:4222      # a server that runs already; without it an embedded one is started
    nats: {user: ann, password: "${NATS_PASSWORD}"}     # how to connect: the fields of NatsConfig
    nats_server: {max_payload: 8388608}                 # the embedded server: NatsServerConfig
    streams: {storage: memory}                          # StreamConfig
    delivery: {max_attempts: 2}                         # DeliveryConfig
    tensors: {inline_threshold: 32768}                  # the data plane: UcpDataPlaneConfig
    restart: {max_restarts: 5}                          # RestartPolicy
    limits: {unresponsive_after: 30}                    # WorkerLimits
    ready_timeout: 60
    log_directory: logs
    logs: {level: DEBUG, style: json}                   # LogConfig
    python_path: [src]                 # where operators are found; by default the file's folder
    workers:
      - name: encoder
        replicas: 2
        environment: {CUDA_VISIBLE_DEVICES: "0"}
        restart: {max_restarts: 0}
        limits: {max_memory: 2147483648}   # bytes; a worker's own limits take the place of all those above
        metrics_port: 9464             # encoder-0 serves Prometheus there, encoder-1 at 9465; 0: any free port
        grace_period: 10               # this and the rest: the fields of WorkerConfig
        operators:
          - name: encoder              # the fields of OperatorConfig
            implementation: triton
            repository: models
            parameters: {config: {max_batch_size: 8}}
      - name: pipeline
        calls: [encoder]               # workers that drain only after this one, which calls their operators
        operators:
          - {name: aggregator, implementation: "operators:Aggregator", max_in_flight: 64}

Only ``workers`` is needed. Paths are relative to the file. ``${NAME}`` is an environment variable, ``${NAME:-default}``
has a default, ``$${`` is a literal ``${``; inside ``{…}`` and ``[…]`` YAML wants them in quotes. Errors name file,
line, column and key.
"""

from tridist.deployment.file.document import DeploymentFileError, Position
from tridist.deployment.file.loader import load_deployment_file, load_worker_file, parse_deployment_file

__all__ = ["DeploymentFileError", "Position", "load_deployment_file", "load_worker_file", "parse_deployment_file"]
