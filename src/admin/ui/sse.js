// Server-sent events over fetch: unlike EventSource it sees a 401, keeps its place over a deliberate pause, and notices
// a connection that has gone quiet. `Last-Event-ID` resumes on any instance, so nothing is missed behind a balancer.

import { sessionLost } from './api.js';

/** The server beats every 15 s; silence for longer than this is a dead connection. */
const SILENCE = 40_000;

export class Stream {
  #url;
  #on;
  #last = '';
  #abort = null;
  #retry = 1000;

  /** `on.event(kind, data)`, `on.state('connecting' | 'live' | 'offline' | 'paused')`. */
  constructor(url, on) {
    this.#url = url;
    this.#on = on;
  }

  open() {
    if (this.#abort) return;
    this.#abort = new AbortController();
    this.#run(this.#abort.signal);
  }

  /** Keeps its place: `open` goes on from there. */
  close() {
    this.#abort?.abort();
    this.#abort = null;
    this.#on.state('paused');
  }

  async #run(stop) {
    let failures = 0;
    while (!stop.aborted) {
      this.#on.state(failures > 1 ? 'offline' : 'connecting');
      const opened = await this.#once(stop);
      if (stop.aborted) return;
      failures = opened ? 1 : failures + 1;
      if (failures > 1) this.#on.state('offline');
      // Many dashboards must not come back in the same instant.
      const wait = Math.min(10_000, this.#retry * 2 ** (failures - 1)) * (0.5 + Math.random() / 2);
      await new Promise((done) => {
        const timer = setTimeout(done, wait);
        stop.addEventListener('abort', () => { clearTimeout(timer); done(); }, { once: true });
      });
    }
  }

  /** One connection to its end; whether it ever opened. */
  async #once(stop) {
    const quiet = new AbortController();
    let watch = setTimeout(() => quiet.abort(), SILENCE);
    try {
      const response = await fetch(this.#url, {
        headers: { accept: 'text/event-stream', ...(this.#last && { 'last-event-id': this.#last }) },
        cache: 'no-store',
        credentials: 'same-origin',
        signal: AbortSignal.any([stop, quiet.signal]),
      });
      if (response.status === 401) {
        this.close();
        sessionLost();
        return false;
      }
      if (!response.ok) return false;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = '';
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return true;
        clearTimeout(watch);
        watch = setTimeout(() => quiet.abort(), SILENCE);
        this.#on.state('live');
        const frames = (rest + value).split('\n\n');
        rest = frames.pop();
        for (const frame of frames) this.#frame(frame);
      }
    } catch {
      return false;
    } finally {
      clearTimeout(watch);
    }
  }

  #frame(frame) {
    let kind = 'message';
    let data = '';
    for (const line of frame.split('\n')) {
      const at = line.indexOf(':');
      if (at < 1) continue;
      const value = line.slice(at + 1).replace(/^ /, '');
      if (line.startsWith('id:')) this.#last = value;
      else if (line.startsWith('event:')) kind = value;
      else if (line.startsWith('data:')) data += value;
      else if (line.startsWith('retry:')) this.#retry = Number(value) || this.#retry;
    }
    if (data) this.#on.event(kind, JSON.parse(data));
  }
}
