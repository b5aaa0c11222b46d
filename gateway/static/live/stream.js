/* The WebSocket GET /v1/stream: a config, then audio; events come back until the service has said all. */

/** One stream. */
export class LiveStream {
  /**
   * Connects and sends the config.
   * @param {object} config the first message.
   * @param {(event: object) => void} hear called with each event.
   */
  constructor(config, hear) {
    const url = new URL("v1/stream", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    this.error = null;
    this.socket = new WebSocket(url);
    this.socket.binaryType = "arraybuffer";
    this.opened = new Promise((resolve) => {
      this.socket.onopen = () => {
        this.socket.send(JSON.stringify(config));
        resolve(true);
      };
      /* Resolves once it is over: null after its end, else what went wrong, `{type, message, retry_after}`. */
      this.closed = new Promise((over) => {
        this.socket.onclose = ({ code }) => {
          resolve(false);
          over(code === 1000 ? null : this.error || { type: code === 1009 ? "payload_too_large" : "connection_lost" });
        };
      });
    });
    this.socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.error) this.error = event.error;
      else hear(event);
    };
  }

  /** Bytes that wait in the browser. */
  get waiting() {
    return this.socket.bufferedAmount;
  }

  /** Sends samples; after the end of the stream they are dropped. */
  send(pcm) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(pcm);
  }

  /** Nothing follows; the last utterance is finished. */
  end() {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send('{"end": {}}');
  }

  /** At once, whatever is still to be said. */
  abandon() {
    this.socket.close();
  }
}
