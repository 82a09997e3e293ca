"""PERSISTENT. The processes that run people's code, seen from the server.

The rule of this folder: people's code runs in workers alone, one process for each generation in use. So whatever
it does to its process (crash, leak, block, patch, chdir, fork) it does to its own generation. Nothing that a worker
sends executes here.

- `processes.py`: starting workers (the template that forks them), how they end, their output.
- `messages.py`: what server and worker send each other.
- `worker.py`: one worker: loading code in it, and the runs that it serves.
- `model_calls.py`: what people's code asks of the model, done in this process.
- `inside/`: what runs in the template, in the guard of each worker, and in the worker itself.
- `kept_values.py`: what `keep` has saved.
- `failure.py`: reports about code that could not be loaded.
"""
