"""An app whose PubNub client always has the sidecar's current token.

    PAMSIDECAR_SOCKET=.pamsidecar-dev/token/token.sock python3 app.py NAME CHANNEL

It needs nothing but Python. With PubNub's SDK installed (pip install pubnub) it
also subscribes; without, it shows what the SDK would be given.
"""
import hashlib
import http.client
import json
import os
import socket
import sys
import time
import urllib.parse

try:
    from pubnub.pnconfiguration import PNConfiguration
    from pubnub.pubnub import PubNub
except ImportError:
    PubNub = None

SOCKET = os.environ.get("PAMSIDECAR_SOCKET", "/run/pamsidecar/token.sock")


class Sidecar(http.client.HTTPConnection):
    """HTTP over the Unix socket."""

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def get(path, etag=""):
    """Asks the sidecar until it answers. While it restarts, what is in use stays good."""
    while True:
        connection = Sidecar("sidecar", timeout=60)
        try:
            connection.request("GET", path, headers={"If-None-Match": etag})
            response = connection.getresponse()
            text = response.read()
            return response.status, response.headers, json.loads(text) if text else {}
        except (OSError, http.client.HTTPException) as error:
            print("the sidecar does not answer:", error, flush=True)
            time.sleep(1)
        finally:
            connection.close()


def connect(user_id):
    """user_id must be the token's authorized_uuid: any other gets 403."""
    keyset = get("/v1/keyset")[2]
    scheme, _, host = keyset["origin"].partition("://")
    print("user", user_id, "of", keyset["subscribe_key"], "at", host, flush=True)
    if PubNub is None:
        return None
    config = PNConfiguration()
    config.publish_key, config.subscribe_key = keyset["publish_key"], keyset["subscribe_key"]
    config.user_id, config.origin, config.ssl = user_id, host, scheme == "https"
    return PubNub(config)


def main(name="checkout", channel="orders"):
    etag, started, pubnub = "", False, None
    while True:
        status, headers, body = get(f"/v1/tokens/{urllib.parse.quote(name, safe='')}?wait=30s", etag)
        if status == 200:
            if not started:
                started, pubnub = True, connect(body["authorized_uuid"] or name)
            etag = headers["ETag"]
            if pubnub:
                pubnub.set_token(body["token"])
                # Reconnects: ends the long poll with the old token and goes on where it was.
                # pubnub.reconnect() does too, but not after a 403, when the SDK has unsubscribed.
                pubnub.subscribe().channels([channel]).execute()
            token_id = hashlib.sha256(body["token"].encode()).hexdigest()[:8]  # the token itself belongs in no log
            print(f"generation {body['generation']}  token #{token_id}", flush=True)
        elif status != 304:  # which means: nothing new within the wait
            etag = ""
            print(f"no token: {status} {body['code']}: {body.get('detail', '')} ({body.get('reason', '')})", flush=True)
            time.sleep(5)  # the wait holds a 503 as well; a 410 comes at once


if __name__ == "__main__":
    main(*sys.argv[1:])
