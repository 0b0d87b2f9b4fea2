"""The tus routes in the OpenAPI document: FastAPI cannot see their headers and bodies."""

from __future__ import annotations

from typing import Any, Final

_NUMBER: Final = {"type": "integer", "minimum": 0}
_TEXT: Final = {"type": "string"}
_BINARY: Final = {"type": "string", "format": "binary"}


def _header(name: str, schema: dict[str, Any], about: str, *, required: bool = False) -> Any:
    return {"name": name, "in": "header", "required": required, "schema": schema} | {
        "description": about
    }


_VERSION: Final = _header(
    "Tus-Resumable", {"type": "string", "enum": ["1.0.0"]}, "The version of tus.", required=True
)
_LENGTH: Final = _header("Upload-Length", _NUMBER, "Bytes in total.")
_DEFER: Final = _header(
    "Upload-Defer-Length", {"type": "string", "enum": ["1"]}, "The length comes later."
)
_METADATA: Final = _header("Upload-Metadata", _TEXT, "`key base64,...`, such as filename.")
_CHECKSUM: Final = _header("Upload-Checksum", _TEXT, "`algorithm base64` of this part.")
_OFFSET: Final = _header("Upload-Offset", _NUMBER, "Where this part begins.", required=True)
_OVERRIDE: Final = _header("X-HTTP-Method-Override", _TEXT, "If proxies pass only POST.")
UPLOAD_ID: Final = {
    "name": "upload_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The id of an upload, the end of its address.",
}
_PART: Final = {
    "content": {"application/offset+octet-stream": {"schema": _BINARY}},
}
_ERROR_CONTENT: Final = {
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
}
_NOT_FOUND: Final = (404, 410)
_ERRORS: Final = {
    "post_all": (400, 412, 413, 415, 429, 460),
    "post_one": (400, 404, 405, 412),
    "patch_one": (400, 408, 409, 412, 413, 415, 423, 460, *_NOT_FOUND),
    "head_one": (412, *_NOT_FOUND),
    "delete_one": (412, 423, *_NOT_FOUND),
}
_PARAMETERS: Final = {
    "post_all": (_VERSION, _LENGTH, _DEFER, _METADATA, _CHECKSUM),
    "post_one": (_VERSION, _OVERRIDE),
    "patch_one": (_VERSION, _OFFSET, _LENGTH, _CHECKSUM),
    "head_one": (_VERSION,),
    "delete_one": (_VERSION,),
}
_ANSWER_HEADERS: Final = {
    "post_all": ("Location", "Upload-Expires", "Upload-Offset"),
    "patch_one": ("Upload-Expires", "Upload-Offset"),
    "head_one": ("Upload-Expires", "Upload-Length", "Upload-Offset", "Upload-Metadata"),
    "options_all": ("Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm"),
}
_STATUS: Final = {"post_all": 201, "head_one": 200}
"""All others are 204."""


def described(operation: str) -> dict[str, Any]:
    """The arguments of `add_api_route` that describe an operation, such as ``patch_one``."""
    names = _ANSWER_HEADERS.get(operation, ())
    success: dict[str, Any] = {"description": "Done"}
    if names:
        success["headers"] = {name: {"schema": _TEXT} for name in names}
    extra: dict[str, Any] = {"parameters": list(_PARAMETERS.get(operation, ()))}
    if operation.endswith("_one"):
        extra["parameters"].insert(0, UPLOAD_ID)
    if operation in ("post_all", "patch_one"):
        extra["requestBody"] = _PART
    # The answer to HEAD has no body.
    error = {"description": "An error"} | ({} if operation == "head_one" else _ERROR_CONTENT)
    errors = dict.fromkeys(_ERRORS.get(operation, ()), error)
    status = _STATUS.get(operation, 204)
    return {
        "status_code": status,
        "responses": {status: success, **errors},
        "openapi_extra": extra,
    }
