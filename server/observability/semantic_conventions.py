"""Names of spans' attributes.

Those of generative AI are still in development, so they are written down here, as of version 1.41, and not taken from
a package whose next version may rename them:
https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-spans.md and
https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-agent-spans.md. The others:
https://opentelemetry.io/docs/specs/semconv/http/http-spans/. What these have no name for begins with `hearth.`.
"""

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
AGENT = "gen_ai.agent.name"
CONVERSATION = "gen_ai.conversation.id"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
MAX_TOKENS = "gen_ai.request.max_tokens"
SAMPLING = {name: f"gen_ai.request.{name}" for name in ("temperature", "top_p", "top_k", "seed")}
"""By the names of Hearth's sampling parameters."""
INPUT_TOKENS = "gen_ai.usage.input_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FIRST_CHUNK_SECONDS = "gen_ai.response.time_to_first_chunk"
TOOL = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_CALL = "gen_ai.tool.call.id"

INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"

ERROR = "error.type"
METHOD = "http.request.method"
ROUTE = "http.route"
STATUS = "http.response.status_code"
RESENT = "http.request.resend_count"
PATH = "url.path"
SCHEME = "url.scheme"
SERVER = "server.address"

REQUEST = "hearth.request.id"
RUN = "hearth.run.id"
FORKED_FROM = "hearth.run.forked_from"
WORKSPACE = "hearth.workspace"
GENERATION = "hearth.generation"
STEPS = "hearth.run.steps"
QUEUE_SECONDS = "hearth.queue.seconds"
FORCED_TOKENS = "hearth.usage.forced_tokens"
FORWARD_PASSES = "hearth.usage.forward_passes"
SESSION = "hearth.session.id"
JOB = "hearth.job.id"
JOB_STATE = "hearth.job.state"
CELL = "hearth.cell.number"
ISOLATION = "hearth.sandbox.isolation"
