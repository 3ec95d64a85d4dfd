/** Drag pictures out of the page: to a folder, to another program, or to another page. */

import { archive, original } from "./api.js";
import { fileName } from "./elements.js";
import { markDragged } from "./intake.js";

/** Fill what is dragged with some images of the collection: their files, addresses and paths. */
export function fillDrag(transfer, images) {
  const [first] = images;
  const whole = (address) => new URL(address, document.baseURI).href;
  const addresses = images.map(({ id }) => whole(original(id)));
  const [type, name, address] = images.length > 1
    ? ["application/zip", "images.zip", whole(archive(images.map(({ id }) => id)))]
    : ["application/octet-stream", fileName(first.path).replaceAll(":", "_"), addresses[0]];
  transfer.effectAllowed = "copy";
  transfer.setData("DownloadURL", `${type}:${name}:${address}`); // which makes a file where it is let go
  transfer.setData("text/uri-list", addresses.join("\r\n"));
  transfer.setData("text/plain", images.map(({ path }) => path).filter(Boolean).join("\n"));
  markDragged(transfer);
}
