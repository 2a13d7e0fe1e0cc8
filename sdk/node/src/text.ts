const CUT = " ... (cut)";

/** The text, cut to at most so many bytes of UTF-8, and without what UTF-8 cannot carry. */
export function bounded(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= maxBytes) return bytes.toString();
  // As a stream, the decoder leaves out a character that is cut in two.
  return new TextDecoder().decode(bytes.subarray(0, maxBytes - CUT.length), { stream: true }) + CUT;
}
