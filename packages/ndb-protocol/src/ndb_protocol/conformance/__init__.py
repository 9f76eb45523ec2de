"""The conformance kit: checks any server, or any client, of the protocol from the outside.

``README.md`` beside this module has the format of its scenarios. What the kit needs beside the
protocol is the extra ``conformance``; `ndb_protocol.conformance.cli` says so where it is missing.
"""
