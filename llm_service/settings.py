"""Settings of the language-model service. Every default is defined here and nowhere else."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llm_service.published import shipped

EMBEDDED = Path(__file__).parent / "models" / "embedded"


class _Settings(BaseModel):
    """Frozen settings; `extra="forbid"` turns a misspelt key into an error instead of a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())


class EngineSettings(_Settings):
    """One vLLM engine."""

    model: str = Field("embedded", description="'embedded', or a Hugging Face model directory")
    device: Literal["cpu", "cuda"] = Field("cpu", description="must be what the installed vLLM was built for")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "bfloat16", description="type of weights and cache"
    )
    max_model_len: int = Field(2560, ge=64, description="maximum tokens of one request, prompt and reply together")
    max_num_seqs: int = Field(32, ge=1, description="maximum requests in one batch of the engine")
    max_queued: int = Field(
        64, ge=1, description="maximum requests in the engine, running and waiting; more are refused"
    )
    max_request_bytes: int = Field(
        65_536, ge=256, description="maximum UTF-8 bytes of messages and schema; more are refused"
    )
    adapters: Literal["auto", "lora", "merged", "off"] = Field(
        "auto",
        description="versions beside the base model (lora), one at a time merged into its weights, or none; auto: what "
        "is faster, merged on a CPU and lora on a GPU",
    )
    max_loras: int = Field(4, ge=1, description="distinct adapter versions in the engine at once (two per role)")
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256] = Field(16, description="largest rank of an adapter")
    kv_cache_gib: float = Field(0.5, gt=0, description="memory of the KV cache in GiB")
    gpu_memory_utilization: float = Field(
        0.85, gt=0, le=1, description="share of the GPU's memory that vLLM checks for at start (device=cuda)"
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs that one engine spans")
    threads: int = Field(1, ge=1, description="OpenMP threads of the engine (device=cpu)")
    enforce_eager: bool = Field(True, description="no graph capture or compilation; false pays off on a GPU")
    seed: int = Field(0, ge=0, description="seed of the engine; a request may carry its own")
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="passed to the model's chat template, for example {enable_thinking: false}"
    )
    thinking_tokens: int = Field(
        0,
        ge=0,
        description="tokens that a reasoning model may spend before its reply, not counted in it; 0: no thinking",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("ERROR", description="level of vLLM's own log")
    log_file: str = Field("", description="file that takes the engine process's output; empty: the process's stderr")

    @property
    def versions(self) -> Literal["lora", "merged", "off"]:
        """How versions are served: `adapters`, with auto decided."""
        if self.adapters == "auto":
            return "merged" if self.device == "cpu" else "lora"
        return self.adapters

    def shipped(self) -> Path | None:
        """The versions that ship with the model; None where there are none, or none are served."""
        return None if self.versions == "off" else shipped(self.model_dir())

    def model_dir(self) -> Path:
        """Directory of the base model; 'embedded' is the one shipped with this package."""
        return EMBEDDED if self.model == "embedded" else Path(self.model).expanduser().resolve()


class EndpointSettings(_Settings):
    """A model behind an OpenAI-compatible API; it replaces the run's own engine."""

    url: str = Field("", description="base URL such as https://host/v1; empty: the run starts its own engine")
    model: str = Field("", description="name of the model there")
    token_env: str = Field("OPENAI_API_KEY", description="environment variable with the token; empty: none is sent")
    schema_field: Literal["json_schema", "json_object", "none"] = Field(
        "json_schema",
        description="how the endpoint is told the form of the reply: by its schema, only that it is "
        "JSON, or not at all",
    )
    limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="name of the field that bounds the reply"
    )
    thinking_tokens: int = Field(0, ge=0, description="added to the reply's bound where the model thinks first")
    priority: bool = Field(False, description="send each request's priority, in the field that vLLM's server reads")
    extra: dict[str, Any] = Field(default_factory=dict, description="extra fields of every request")


class ServiceSettings(_Settings):
    """The deployment and its clients."""

    engine: EngineSettings = EngineSettings()
    endpoint: EndpointSettings = EndpointSettings()
    max_in_flight: int = Field(16, ge=1, description="maximum requests that one client keeps in flight; others wait")
    max_handle_queue: int = Field(64, ge=1, description="requests that one client's handle queues for a busy replica")
    start_timeout_s: float = Field(300.0, gt=0, description="seconds until the deployment must be running")
    health_period_s: float = Field(2.0, gt=0, description="seconds between two health checks of a replica")
    health_timeout_s: float = Field(30.0, gt=0, description="seconds after which a silent replica is replaced")
    warmup_deadline_s: float = Field(120.0, gt=0, description="deadline of the warm-up request of a new version")
    orphaned_minutes: float = Field(
        10.0, gt=0, description="minutes without a sign of life of its run after which a deployment ends itself"
    )
