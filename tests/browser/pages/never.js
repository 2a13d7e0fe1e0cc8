// A module that is never loaded.

await new Promise(() => {});

export const late = () => "too late";
