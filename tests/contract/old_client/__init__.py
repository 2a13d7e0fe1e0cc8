"""A client of the first release, which today's services must still serve.

`first_release.binpb` is the image of that release's protos. It never changes; `protos/baseline.binpb` is that of the last release.
"""
