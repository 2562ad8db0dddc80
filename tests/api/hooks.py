"""What scripts/api.sh leaves out of the document before Schemathesis makes requests of it.

A stream of changes has no end, so GET is not asked for one; HEAD is. Waits are short, and timeouts are long enough that
none is over before the answer. A value's media type may be anything; Schemathesis needs one that it can write.
"""

import schemathesis

STREAM_PARAMETERS = {"Watch", "Since", "LastEventId"}


@schemathesis.hook
def before_load_schema(context, raw_schema):
    for item in raw_schema["paths"].values():
        for method, operation in item.items():
            if method == "parameters":
                continue
            if method == "get" and "parameters" in operation:
                operation["parameters"] = [
                    one for one in operation["parameters"] if one["$ref"].rsplit("/", 1)[-1] not in STREAM_PARAMETERS
                ]
            content = operation.get("requestBody", {}).get("content", {})
            if "*/*" in content:
                content["application/octet-stream"] = content.pop("*/*")
    parameters = raw_schema["components"]["parameters"]
    for name in ("Wait", "WaitForAny"):
        parameters[name]["schema"] = {"type": "string", "enum": ["1ms", "20ms"]}
        parameters[name].pop("example", None)
    parameters["Timeout"]["schema"] = {"type": "string", "enum": ["4s", "5m"]}
    parameters["Timeout"].pop("example", None)
