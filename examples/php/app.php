<?php
// An app that always has the sidecar's current token. It needs nothing but PHP 8.
//
//   PAMSIDECAR_SOCKET=.pamsidecar-dev/token/token.sock php app.php NAME
//
// A web request reads the token once, sets it on the SDK and is done; it need not
// follow anything. This is a worker, which lives longer than a token.

declare(strict_types=1);

/** Asks the sidecar until it answers: [status, headers, body]. While it restarts, what is in use stays good. */
function get(string $path, string $etag = ''): array
{
    $socket = getenv('PAMSIDECAR_SOCKET') ?: '/run/pamsidecar/token.sock';
    for (;; sleep(1)) {
        $stream = @stream_socket_client("unix://$socket", $code, $message, 5);
        if (!$stream) {
            echo "the sidecar does not answer: $message\n";
            continue;
        }
        stream_set_timeout($stream, 60);
        fwrite($stream, "GET $path HTTP/1.0\r\nHost: localhost\r\nIf-None-Match: $etag\r\n\r\n"); // 1.0: the answer ends with the connection
        [$head, $body] = explode("\r\n\r\n", stream_get_contents($stream), 2) + ['', ''];
        fclose($stream);
        $json = json_decode($body, true);
        if (!preg_match('~^HTTP/\S+ (\d+)~', $head, $status) || !is_array($json) && $status[1] !== '304') {
            echo "the sidecar does not answer: connection lost\n";
            continue;
        }
        preg_match_all('~^([\w-]+): (.*?)\r?$~m', $head, $lines);
        return [(int) $status[1], array_change_key_case(array_combine($lines[1], $lines[2])), $json];
    }
}

$name = $argv[1] ?? 'checkout';
[, , $keyset] = get('/v1/keyset');
for ($etag = '', $pubnub = null; ;) {
    [$status, $headers, $body] = get('/v1/tokens/' . rawurlencode($name) . '?wait=30s', $etag);
    if ($status === 200) {
        $etag = $headers['etag'];
        if (!$pubnub) {
            $userId = $body['authorized_uuid'] ?? $name; // the token's UUID: any other user ID gets 403
            echo "user $userId of {$keyset['subscribe_key']} at {$keyset['origin']}\n";
            // $config = (new PubNub\PNConfiguration())->setPublishKey($keyset['publish_key'])
            //     ->setSubscribeKey($keyset['subscribe_key'])->setUserId($userId);
            // $pubnub = new PubNub\PubNub($config);
            $pubnub = true;
        }
        // $pubnub->setToken($body['token']);
        // Each request sends the token of that moment, so there is nothing to reconnect. A process that
        // subscribes is another case, because that call blocks: see docs/APPS.md.
        $id = substr(hash('sha256', $body['token']), 0, 8); // the token itself belongs in no log
        echo "generation {$body['generation']}  token #$id\n";
    } elseif ($status !== 304) { // which means: nothing new within the wait
        $etag = '';
        echo "no token: $status {$body['code']}: {$body['detail']} (" . ($body['reason'] ?? '') . ")\n";
        sleep(5); // the wait holds a 503 as well; a 410 comes at once
    }
}
