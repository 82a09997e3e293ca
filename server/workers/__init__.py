"""The processes that run people's code, seen from the server.

The rule of this folder: people's code runs only in workers, one process for each generation in use. If it crashes,
leaks, blocks, patches, forks or changes the folder, only its own generation is affected. The server executes nothing
that a worker sends.

- `pool.py`: all workers: starting them, listing them, ending idle ones.
- `worker.py`: one worker: loading code in it, and the runs that it serves.
- `messages.py`: what server and worker send each other.
- `model_calls.py`: the model calls of people's code, which the server does.
- `template.py`: the template that forks workers: starting it, what it has imported, the spare worker.
- `process.py`: one worker as a process: its socket, its output, its end.
- `event_loop.py`: the thread that reads the output of all workers, and notices when they end.
- `output.py`: a worker's output in the server's log.
- `stacks.py`: which line of people's code a thread is in.
- `failure.py`: reports about code that could not be loaded.
- `kept_values.py`: the values that `keep` has saved.
- `inside/`: what runs in the template, in the guard of each worker, and in the worker itself.
"""
