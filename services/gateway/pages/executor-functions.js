// What a browser offers on the page /executor. A module of your own is like this: exported functions are offered by their names.

const MAX_SECONDS = 3_600;

/** Two outputs: each child is given the one that its edge selects. */
export function gen_nums() {
  this.log("generating 2 and 3");
  return this.outputs(2, 3);
}
gen_nums.description = "Generates two numbers: two outputs.";

export function square(number) {
  this.log(`squaring ${number}`);
  return number * number;
}
square.description = "Squares a number.";

export function sum(...numbers) {
  this.log(`adding ${numbers.join(" and ")}`);
  // Whole numbers beyond 2^53 come as BigInts, which do not mix with others.
  const isExact = numbers.some((number) => typeof number === "bigint") && numbers.every((number) => Number.isInteger(Number(number)));
  const one = isExact ? BigInt : Number;
  return numbers.map(one).reduce((total, number) => total + number, one(0));
}
sum.description = "Adds numbers.";

export function echo(...args) {
  return this.outputs(...args);
}
echo.description = "Gives back what it is given.";

export async function sleep(seconds) {
  if (!(seconds >= 0 && seconds <= MAX_SECONDS)) throw new RangeError(`seconds is ${seconds}: it must be 0 to ${MAX_SECONDS}`);
  const { signal } = this;
  await new Promise((resolve, reject) => {
    setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => reject(signal.reason));
  });
  return seconds;
}
sleep.description = "Waits for some seconds.";

export function count_primes(below) {
  if (!(below >= 0 && below <= 1e8)) throw new RangeError(`below is ${below}: it must be 0 to 100 000 000`);
  const isComposite = new Uint8Array(below);
  let count = 0;
  for (let number = 2; number < below; number++) {
    if (isComposite[number]) continue;
    count++;
    for (let multiple = number * number; multiple < below; multiple += number) isComposite[multiple] = 1;
  }
  return count;
}
count_primes.description = "Counts the primes below a number: something to keep a processor busy with.";
