// Acts with an exported step: its card says what goes in and what of it comes back in the next step.

export class Policy {
  // ort: onnxruntime-web. url: of the .onnx file, beside which lies its card. targetReturn: the
  // return to ask for; the card's first one when it is left out.
  static async load(ort, url, targetReturn) {
    const policy = new Policy();
    policy.ort = ort;
    policy.card = await (await fetch(`${url}.json`)).json();
    const file = new Uint8Array(await (await fetch(url)).arrayBuffer());
    policy.session = await ort.InferenceSession.create(file);
    policy.targetReturn = targetReturn ?? policy.card.target_returns[0];
    policy.reset();
    return policy;
  }

  // Before every episode: the state is filled with a number each, or with the target return.
  reset() {
    this.feeds = {};
    for (const input of this.card.inputs) {
      const value = this.card.reset_state[input.name] ?? 0;
      this.fill(input.name, value === "target_return" ? this.targetReturn : value);
    }
  }

  fill(name, value) {
    const { shape } = this.card.inputs.find((input) => input.name === name);
    const sizes = shape.map((size) => (size === "batch" ? 1 : size));
    const numbers = new Float32Array(sizes.reduce((product, size) => product * size, 1));
    if (typeof value === "number") numbers.fill(value);
    else numbers.set(value);
    this.feeds[name] = new this.ort.Tensor("float32", numbers, sizes);
  }

  // The next action, as an array. reward: what the last one earned; 0 at an episode's start.
  async act(observation, reward = 0) {
    this.fill("observation", observation);
    if ("reward" in this.feeds) this.fill("reward", reward);
    const outputs = await this.session.run(this.feeds);
    for (const [from, to] of Object.entries(this.card.state)) this.feeds[to] = outputs[from];
    return Array.from(outputs.action.data);
  }
}
