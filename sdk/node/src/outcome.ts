// From an assignment to the end of its attempt: decode, call, encode, or say what went wrong.

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Assignment, CloseSchema } from "#protos/scheduler/v1/scheduler_service";
import type { Value } from "#protos/scheduler/v1/spec";
import type { Context } from "./context.js";
import { Failure, ValueEncodingError } from "./errors.js";
import { bounded } from "./text.js";
import { Outputs, decode, encode } from "./values.js";

const MAX_ERROR_BYTES = 8 * 1024;

/** A function of an executor: is given the arguments of the spec, then the outputs of the parents. Its result is the output. */
export type Func = (args: any, context: Context) => unknown;

export type Outcome = NonNullable<MessageInitShape<typeof CloseSchema>["outcome"]>;

/** A failure in one text, or several. */
export function failure(errors: string[], retryable = false): Outcome {
  return { case: "failure", value: { errors: errors.map((error) => bounded(error, MAX_ERROR_BYTES)), retryable } };
}

/** Runs a function to its end, and says how that went. */
export async function outcomeOf(
  functions: ReadonlyMap<string, Func>,
  { spec, inputs }: Assignment,
  contextWith: (kwargs: Record<string, any>) => Context,
): Promise<Outcome> {
  const name = spec?.funcName ?? "";
  const func = functions.get(name);
  if (!func) {
    const known = [...functions.keys()].sort().join(", ") || "none";
    const advice = "work goes to any executor of its type: give those with other functions another type";
    return failure([`this executor has no function '${name}'; it has: ${known} (${advice})`]);
  }
  try {
    const args = [...decoded(spec?.args ?? [], "argument"), ...decoded(inputs, "input")];
    const kwargs = Object.entries(spec?.kwargs ?? {}).map(([key, value]) => [key, ...decoded([value], `keyword argument '${key}'`)]);
    return success(await func(args, contextWith(Object.fromEntries(kwargs))));
  } catch (error) {
    return failureOf(error);
  }
}

function decoded(values: readonly Value[], what: string): any[] {
  return values.map((value, index) => {
    try {
      return decode(value);
    } catch (error) {
      throw new Failure(`${what}${values.length > 1 ? ` ${index + 1}` : ""}: ${(error as Error).message}`);
    }
  });
}

function success(result: unknown): Outcome {
  try {
    const values = result instanceof Outputs ? result.values : [result];
    return { case: "success", value: { outputs: values.map((value) => encode(value)) } };
  } catch (error) {
    if (!(error instanceof ValueEncodingError)) throw error;
    throw new Failure(`its result cannot be sent: ${error.message}`);
  }
}

/** The failure that something thrown means: the text of a Failure, and of all else its name and where it came from. */
function failureOf(error: unknown): Outcome {
  try {
    if (error instanceof Failure) return failure([`${error.message}`], error.retryable);
    if (error instanceof Error) return failure([`${error.name}: ${error.message}`, ...(error.stack ? [`${error.stack}`] : [])]);
    return failure([`threw ${String(error)}`]);
  } catch {
    // Its text is a getter that throws, or it has none: that must not hide that something was thrown.
    return failure(["threw something whose text cannot be told"]);
  }
}
