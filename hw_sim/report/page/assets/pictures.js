// Before and after: the picture on top is shown left of a line that a slider moves.
function slide(box) {
  const slider = box.querySelector("input");
  const show = () => box.style.setProperty("--shown", `${slider.value}%`);
  slider.addEventListener("input", show);
  show();
}

slide(document.getElementById("before-after"));
