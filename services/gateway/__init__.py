"""HTTP/JSON for who has no gRPC, and the pages that browsers load.

    POST /api/<package.Service>/<Method>    becomes the call    /<package.Service>/<Method>+json

with the body and the signature as they came.

It decodes no body, knows no method, holds no key and keeps nothing: what was signed is what the service checks. So it need not
be trusted, any number of replicas will do, and one that dies loses what it had in hand and nothing else.
"""
