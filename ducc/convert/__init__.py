"""From wishes to revisions: what is missing is found out (`plan`), fetched, ingested and grafted, and committed once.

A wish may fail alone; what it shares with others is theirs too. Asking again for what is published costs one request
a wish and changes nothing.
"""
