"""Documented shapes: what models say of their fields, and the JSON Schema of a run file.

The schema knows keys, types, bounds and defaults. Rules that cross fields are beyond it: `forager plan` checks all.
"""

import ast
import inspect
from contextlib import suppress
from itertools import pairwise
from textwrap import dedent
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from orchestrator.config import RunConfig
from telemetry.failures import one_line

DIALECT = GenerateJsonSchema.schema_dialect


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """The docstring under each field as one line, as far as the source is there."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        with suppress(OSError, SyntaxError):
            [tree] = ast.parse(dedent(inspect.getsource(cls))).body
            for field, doc in pairwise(getattr(tree, "body", ())):
                text = doc.value if isinstance(doc, ast.Expr) else None
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Constant):
                    found[ast.unparse(field.target)] = one_line(str(text.value))
    return found


class _Documented(GenerateJsonSchema):
    def model_schema(self, schema: Any) -> JsonSchemaValue:
        shape = super().model_schema(schema)
        for name, text in field_docs(schema["cls"]).items():
            shape["properties"][name]["description"] = text
        return shape


def run_file_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a run file, every key with its meaning."""
    schema = RunConfig.model_json_schema(schema_generator=_Documented)
    return {"$schema": DIALECT, **schema, "title": "Forager run file"}
