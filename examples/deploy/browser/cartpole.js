// Gymnasium's CartPole-v1: the equations of Barto, Sutton and Anderson (1983), by Euler's method.

const GRAVITY = 9.8, CART = 1.0, POLE = 0.1, HALF = 0.5, FORCE = 10.0, SECONDS = 0.02;
const WIDEST = 2.4, STEEPEST = (12 * 2 * Math.PI) / 360;
export const LONGEST = 500; // steps

export class CartPole {
  // random: a function that gives numbers in [0, 1).
  constructor(random = Math.random) {
    this.random = random;
    this.reset();
  }

  // Position, velocity, angle and angular velocity, all small.
  reset() {
    this.state = Array.from({ length: 4 }, () => 0.1 * this.random() - 0.05);
    this.steps = 0;
    return this.state;
  }

  // action: 0 pushes to the left, 1 to the right. Every step earns 1.
  step(action) {
    let [x, speed, angle, turn] = this.state;
    const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
    const push = action === 1 ? FORCE : -FORCE, mass = CART + POLE;
    const pull = (push + POLE * HALF * turn * turn * sine) / mass;
    const turning = (GRAVITY * sine - cosine * pull)
      / (HALF * (4 / 3 - (POLE * cosine * cosine) / mass));
    const rushing = pull - (POLE * HALF * turning * cosine) / mass;
    x += SECONDS * speed;
    speed += SECONDS * rushing;
    angle += SECONDS * turn;
    turn += SECONDS * turning;
    this.state = [x, speed, angle, turn];
    this.steps += 1;
    const fallen = Math.abs(x) > WIDEST || Math.abs(angle) > STEEPEST;
    return { observation: this.state, reward: 1, done: fallen || this.steps >= LONGEST };
  }

  draw(canvas) {
    const paper = canvas.getContext("2d"), scale = canvas.width / (2 * WIDEST);
    const [x, , angle] = this.state, ground = 0.75 * canvas.height;
    paper.clearRect(0, 0, canvas.width, canvas.height);
    paper.fillStyle = "#888";
    paper.fillRect(0, ground + 12, canvas.width, 2);
    paper.save();
    paper.translate(canvas.width / 2 + scale * x, ground);
    paper.fillStyle = "#1f4e79";
    paper.fillRect(-30, -12, 60, 24);
    paper.rotate(angle);
    paper.fillStyle = "#c55a11";
    paper.fillRect(-5, -2 * HALF * scale, 10, 2 * HALF * scale);
    paper.restore();
  }
}
