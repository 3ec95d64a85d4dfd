/** Accept pictures that are chosen, photographed, dropped or pasted. */

const FROM_HERE = "application/x-imgsearch"; // the type of what is dragged from this page

/** Call `take(files)` with the pictures, and `refuse(reason)` for anything else. */
export function listen({ take, refuse }) {
  const $ = (id) => document.getElementById(id);
  for (const [button, input] of [["choose", "file"], ["photograph", "camera"]]) {
    $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", (event) => {
      const files = [...event.target.files];
      if (files.length) take(files);
      event.target.value = ""; // so that the same file can be chosen again
    });
  }

  const receive = (transfer, none) => {
    const files = picturesOf(transfer);
    if (files.length) take(files);
    else refuse(none);
  };

  document.addEventListener("paste", (event) => {
    if (event.target.closest?.("input, textarea") && !event.clipboardData.files.length) return; // a text
    event.preventDefault();
    receive(event.clipboardData, "There is no image on the clipboard.");
  });

  const shade = $("drop");
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer?.types.includes(FROM_HERE)) return;
    event.preventDefault();
    shade.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) shade.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    shade.hidden = true;
    if (event.dataTransfer.types.includes(FROM_HERE)) return;
    receive(event.dataTransfer, whyNone(event.dataTransfer));
  });
}

/** Mark what is dragged as coming from this page, so that it is not searched for when it is let go. */
export function markDragged(transfer) {
  transfer.setData(FROM_HERE, "1");
}

/** Return the pictures in a transfer: files, or what another page holds within itself. */
function picturesOf(transfer) {
  const folders = [...transfer.items].some((item) => item.webkitGetAsEntry?.()?.isDirectory);
  const files = folders ? [] : [...transfer.files];
  const pictures = files.filter((file) => !file.type || file.type.startsWith("image/"));
  if (files.length) return pictures.length ? pictures : files.slice(0, 1); // which is refused by its name
  return [embedded(transfer)].filter(Boolean);
}

/** Return the picture whose bytes are in the address that another page has given; null without one. */
function embedded(transfer) {
  const html = new DOMParser().parseFromString(transfer.getData("text/html"), "text/html");
  const image = html.querySelector("img");
  const address = image?.getAttribute("src") ?? transfer.getData("text/uri-list");
  const [, type, data] = /^data:(image\/[\w.+-]+);base64,([A-Za-z0-9+/=\s]+)$/.exec(address) ?? [];
  if (!data) return null;
  try {
    const bytes = Uint8Array.from(atob(data.replace(/\s/g, "")), (letter) => letter.charCodeAt(0));
    return new File([bytes], image?.alt || "picture", { type });
  } catch {
    return null; // that is not base64
  }
}

function whyNone(transfer) {
  if ([...transfer.items].some((item) => item.kind === "file")) return "Drop pictures; a folder cannot be searched with.";
  if (/^https?:/.test(transfer.getData("text/uri-list"))) {
    return "The other page gave only the address of its picture, and nothing is fetched from elsewhere. "
      + "Copy the picture there, and paste it here.";
  }
  return "That is not an image file. Save the image first, then drop the file.";
}
