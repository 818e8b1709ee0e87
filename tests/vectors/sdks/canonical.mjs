// What no template says: each has a canonical form of its own.

export const canonical = {};
