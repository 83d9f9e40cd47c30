"""A receiver of lines over TLS with nothing of the crate in it: Python's ssl module, which is OpenSSL.

Arguments: a file for the lines, the server's certificate, its key, the highest version (1.2 or 1.3), and the
certificates that clients must lead to (or nothing). Prints its port. Serves one connection after the other.
"""
import socket
import ssl
import sys

path, cert, key, version, client_ca = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
context.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
if client_ca:
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(client_ca)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    plain, _ = listener.accept()
    try:
        with context.wrap_socket(plain, server_side=True) as stream, open(path, "ab", buffering=0) as file:
            while received := stream.recv(65536):
                file.write(received)
    except OSError as error:
        print(error, file=sys.stderr)
