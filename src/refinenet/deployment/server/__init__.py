"""The HTTP server; start reading with `app.create_app`, or with `runner.serve`, which runs it.

A request passes `http.connections` (sockets and their times), `http.gate` (hosts, token, size of the body), `routes`
(parameters), `work` (a bounded queue before the threads that compute) and `service` (bytes to results, with a limit
on pixels; `io.images.isolated_decoding` decodes the images in child processes, as they come from strangers). `page`
is for browsers, `open_inference` for clients of other servers, whose tensors have a limit of their own. FastAPI and
uvicorn are imported only here: pip install 'refinenet-torch[serve]'.
"""
