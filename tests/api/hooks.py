"""What scripts/api.sh leaves out of the document before Schemathesis makes requests of it.

A stream of changes has no end, so GET is not asked for one; HEAD is. Waits are short, and timeouts are long enough that
none is over before the answer. A value's media type may be anything; Schemathesis needs one that it can write.

Parameters that exclude one another make almost every request that has been put together at random a bad one. With
KEVA_PARAMETERS=apart, only some are left in the document, drawn with the seed KEVA_SEED.
"""

import os
import random

import schemathesis

STREAM_PARAMETERS = {"Watch", "Since", "LastEventId"}

# Of each of these lists one set of parameters stays.
CHOICES = {
    "putKey": [["IfRev"], ["IfAbsent"], ["IfMatch"], ["IfNoneMatch"], []],
    "postKey": [
        ["Append", "Ttl", "IfAbsent"],
        ["Append", "IfMatch"],
        ["Add", "Ttl", "IfNoneMatch"],
        ["Add", "IfRev"],
        ["Delete", "IfNoneMatch"],
        ["Ttl", "IfAbsent"],
    ],
    "deleteKey": [["IfRev"], ["IfAbsent"], ["IfMatch"], ["IfNoneMatch"], []],
    "headKey": [["Watch"], ["Watch", "Consistency"], ["Wait", "IfNoneMatch", "Missing"], ["IfMatch", "Consistency"]],
    "listKeys": [["Count", "IfMatch"], ["Limit", "IfNoneMatch"], ["Limit", "WaitForAny"]],
    "headKeys": [["Count", "IfMatch"], ["Limit", "IfNoneMatch"], ["Watch"]],
}
ALWAYS = {"Key", "Timeout", "IdempotencyKey", "Prefix", "Start", "End", "After"}


def name_of(parameter):
    return parameter["$ref"].rsplit("/", 1)[-1]


@schemathesis.hook
def before_load_schema(context, raw_schema):
    operations = [
        (method, operation)
        for item in raw_schema["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    ]
    for method, operation in operations:
        parameters = operation.get("parameters", [])
        if method == "get":
            parameters = [one for one in parameters if name_of(one) not in STREAM_PARAMETERS]
        operation["parameters"] = parameters
        content = operation.get("requestBody", {}).get("content", {})
        if "*/*" in content:
            content["application/octet-stream"] = content.pop("*/*")
    parameters = raw_schema["components"]["parameters"]
    for name in ("Wait", "WaitForAny"):
        parameters[name]["schema"] = {"type": "string", "enum": ["1ms", "20ms"]}
        parameters[name].pop("example", None)
    parameters["Timeout"]["schema"] = {"type": "string", "enum": ["4s", "5m"]}
    parameters["Timeout"].pop("example", None)
    # What is too long cannot be said in a schema.
    life = {"type": "string", "enum": ["1ms", "30s", "15m", "48h", "3650d"]}
    parameters["Ttl"]["schema"] = life
    for operation in raw_schema["components"]["schemas"]["Operation"]["oneOf"]:
        if "ttl" in operation["properties"]:
            operation["properties"]["ttl"] = life
    if os.environ["KEVA_PARAMETERS"] == "apart":
        keep_apart(raw_schema, operations)


def keep_apart(raw_schema, operations):
    seed = random.Random(int(os.environ["KEVA_SEED"]))
    for _, operation in operations:
        choices = CHOICES.get(operation["operationId"])
        if choices:
            kept = ALWAYS.union(seed.choice(choices))
            operation["parameters"] = [one for one in operation["parameters"] if name_of(one) in kept]
        if operation["operationId"] == "deleteKeys":
            operation["parameters"] = [one for one in operation["parameters"] if name_of(one) != "All"]
    components = raw_schema["components"]
    components["parameters"]["PrefixToDelete"]["required"] = True
    # Schemathesis takes 0 for a list of tags.
    for name in ("IfMatch", "IfNoneMatch"):
        components["parameters"][name]["schema"] = {"type": "string", "enum": ["*", '"12"', '"1", W/"2"']}
