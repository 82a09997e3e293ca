"""Pictures: where they come from, decoded, stored once, and shown to a model or read for it.

```
source ── sandbox: decode ── pixels ── PNG or JPEG, stored by hash ── ImagePart ─┬─ a model that takes images
                                                                                 └─ OCR and facts, as text
```
In texts a picture is a mark such as `[image 1f3a9c02d4e5b6a7: chart.png, 800 x 600]`. What sends a text to a model
that takes images puts the picture there; for every other model, what was read of it stands after the mark. So agents
and tools handle texts alone, and no picture is in the database, in a log or in a message to a worker.

Rule: bytes that somebody sent are decoded in a sandbox and nowhere else.
"""
