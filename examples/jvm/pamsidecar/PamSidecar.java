package pamsidecar;

import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.URLEncoder;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.function.Consumer;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

import static java.nio.charset.StandardCharsets.UTF_8;

/**
 * Reads and follows the sidecar's tokens. It needs nothing but JDK 16; copy it as it is into a Java or Kotlin project.
 * With PubNub's SDK, in Kotlin:
 *
 * <pre>{@code
 * val sidecar = PamSidecar(Path.of("/run/pamsidecar/token.sock"))
 * val userId = UserId(sidecar.get("/v1/tokens/checkout", "").text("authorized_uuid")) // any other gets 403
 * val keyset = sidecar.get("/v1/keyset", "")
 * val pubnub = PubNub.create(userId, keyset.text("subscribe_key")) { publishKey = keyset.text("publish_key") }
 * thread(isDaemon = true) {
 *     sidecar.follow("checkout", {
 *         pubnub.setToken(it.text("token"))
 *         pubnub.disconnect() // ends the long poll that has the old token
 *         pubnub.reconnect()  // goes on where it was
 *     }, ::println)
 * }
 * }</pre>
 */
public record PamSidecar(Path socket) {

    /** Follows a name until the thread is interrupted: token is told each token, problem why there is none. */
    public void follow(String name, Consumer<Answer> token, Consumer<String> problem) throws InterruptedException {
        var path = "/v1/tokens/" + URLEncoder.encode(name, UTF_8).replace("+", "%20") + "?wait=30s";
        for (var etag = ""; ; ) {
            var answer = get(path, etag);
            switch (answer.status()) {
                case 200 -> {
                    token.accept(answer);
                    etag = answer.header("ETag");
                }
                case 304 -> { } // nothing new within the wait
                default -> {
                    etag = "";
                    problem.accept(answer.status() + " " + answer.text("code") + ": " + answer.text("detail") + " (" + answer.text("reason") + ")");
                    Thread.sleep(5000); // the wait holds a 503 as well; a 410 comes at once
                }
            }
        }
    }

    /** Asks the sidecar until it answers. While it restarts, what is in use stays good. */
    public Answer get(String path, String etag) throws InterruptedException {
        for (; ; Thread.sleep(1000)) {
            try (var channel = SocketChannel.open(StandardProtocolFamily.UNIX)) {
                channel.connect(UnixDomainSocketAddress.of(socket));
                var request = "GET " + path + " HTTP/1.0\r\nHost: localhost\r\nIf-None-Match: " + etag + "\r\n\r\n";
                Channels.newOutputStream(channel).write(request.getBytes(UTF_8));
                var answer = new String(Channels.newInputStream(channel).readAllBytes(), UTF_8); // 1.0: it ends with the connection
                var parts = Pattern.compile("(?s)HTTP/\\S+ (\\d+)(.*?)\r\n\r\n(\\{.*}\\s*)?").matcher(answer);
                if (parts.matches()) return new Answer(Integer.parseInt(parts.group(1)), parts.group(2), parts.group(3));
                System.out.println("the sidecar does not answer: connection lost");
            } catch (IOException e) {
                System.out.println("the sidecar does not answer: " + e.getMessage());
            }
        }
    }

    /** An answer: its status, its headers, and its JSON document, if any. */
    public record Answer(int status, String headers, String json) {
        /** A header, "" if it is not there. */
        public String header(String name) {
            var m = Pattern.compile("(?im)^" + name + ": (.*)$").matcher(headers);
            return m.find() ? m.group(1).strip() : "";
        }

        /** A text or number of the document, "" if it is null or not there. */
        public String text(String field) {
            var m = Pattern.compile("\"" + field + "\":(?:\"([^\"\\\\]*+(?:\\\\.[^\"\\\\]*+)*+)\"|(\\d+))").matcher(json);
            if (!m.find()) return "";
            if (m.group(2) != null) return m.group(2);
            return Pattern.compile("\\\\(?:u(\\p{XDigit}{4})|.)").matcher(m.group(1)).replaceAll(escape -> Matcher.quoteReplacement(
                escape.group(1) == null ? escape.group().translateEscapes() : Character.toString(Integer.parseInt(escape.group(1), 16))));
        }
    }

    /** PAMSIDECAR_SOCKET=.pamsidecar-dev/token/token.sock java pamsidecar/PamSidecar.java NAME */
    public static void main(String[] args) throws Exception {
        var socket = System.getenv().getOrDefault("PAMSIDECAR_SOCKET", "/run/pamsidecar/token.sock");
        var sidecar = new PamSidecar(Path.of(socket));
        var keyset = sidecar.get("/v1/keyset", "");
        System.out.println("keyset " + keyset.text("subscribe_key") + " at " + keyset.text("origin"));
        var sha256 = MessageDigest.getInstance("SHA-256");
        sidecar.follow(args.length > 0 ? args[0] : "checkout", token -> {
            // The SDK's user ID must be this one. On it: setToken(token.text("token")), disconnect(), reconnect().
            var user = token.text("authorized_uuid");
            var id = ByteBuffer.wrap(sha256.digest(token.text("token").getBytes(UTF_8))).getInt(); // the token itself belongs in no log
            System.out.printf("generation %s  token #%08x  user %s%n", token.text("generation"), id, user);
        }, problem -> System.out.println("no token: " + problem));
    }
}
