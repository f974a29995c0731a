"""How long and how large the fields of messages may be. Both ends keep to them, so that what is sent can be read."""

MAX_TENSORS = 1024
MAX_DIMENSION = 2**48
MAX_PARAMETERS = 4096
MAX_REQUESTED_OUTPUTS = 4096
MAX_TRACE_HEADERS = 64
MAX_ID_LENGTH = 128
MAX_OPERATOR_LENGTH = 128
MAX_ADDRESS_LENGTH = 512
MAX_PRIORITY = 2**31 - 1
MIN_PRIORITY = -(2**31)
MAX_ERROR_LENGTH = 65536
MAX_ERROR_ATTRIBUTES = 64
MAX_CODE_LENGTH = 64
MAX_INTEGER = 2**63 - 1
MIN_INTEGER = -(2**63)
DEFAULT_RESPONSE_WINDOW = 32
MAX_RESPONSE_WINDOW = 65536
MAX_REPORTED = 512
"""Requests in one report or enquiry. With the longest ids that is 64 KiB and a little, less than any server's limit."""
