/** Take a picture in: chosen, photographed, dropped or pasted. */

/** Have `take(file)` called with each picture, `refuse(reason)` with what is not one. */
export function listen({ take, refuse }) {
  const $ = (id) => document.getElementById(id);
  for (const [button, input] of [["choose", "file"], ["photograph", "camera"]]) {
    $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", (event) => {
      const [file] = event.target.files;
      if (file) take(file);
      event.target.value = ""; // the same file may be chosen again
    });
  }

  const receive = (transfer, none) => {
    const files = [...transfer.files];
    const file = files.find((one) => one.type.startsWith("image/")) ?? files[0];
    if (file) take(file);
    else refuse(none);
  };

  document.addEventListener("paste", (event) => {
    event.preventDefault();
    receive(event.clipboardData, "There is no image on the clipboard.");
  });

  const shade = $("drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    shade.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) shade.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    shade.hidden = true;
    receive(event.dataTransfer, "That is not an image file. Save the image first, then drop the file.");
  });
}
