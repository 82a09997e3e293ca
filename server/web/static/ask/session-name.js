// A name for a new conversation, that people can say.

const FIRST = "amber bright calm clear copper early fair gentle golden green keen lively mild noble quick quiet silver still warm wise".split(" ");
const SECOND = "alder ash beech birch cedar coral delta ember fern flint harbor hazel heron lake maple meadow otter quartz river willow".split(" ");
const one = (list) => list[Math.floor(Math.random() * list.length)];

export const sessionName = () => `${one(FIRST)}-${one(SECOND)}-${Math.floor(Math.random() * 46656).toString(36).padStart(3, "0")}`;
