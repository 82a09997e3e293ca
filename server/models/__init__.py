"""The models that the server holds: loading them, holding them resident, and giving them back.

Rule: nothing here knows HTTP, runs people's tools, or imports torch before a model is loaded. `resident.py` owns the
state of each model; everybody else asks it. `loading.py` runs the recipe `server/model.py`, `autoload.py` loads code,
model and tools at the start, `background.py` writes notes with a second model.
"""
