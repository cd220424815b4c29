// The region on the page. The server draws it; this script shows a stroke while the user paints it and then sends an
// event: 'stroke' {tool, points, radius} or 'pick' {tool, point}, in pixels of the original picture; 'undo'; 'clear'.
const colours = { paint: 'rgba(255, 0, 128, 0.55)', erase: 'rgba(255, 255, 255, 0.65)' };
const one = (selector) => element.querySelector(selector);
let tool = 'paint';
let points = [];

function layout() {
  const value = props.value, image = one('img'), canvas = one('canvas');
  if (!image) return;
  image.style.display = value ? 'block' : 'none';
  one('.empty').style.display = value ? 'none' : 'block';
  canvas.style.display = value ? 'block' : 'none';
  element.querySelectorAll('[data-tool]').forEach((b) => b.setAttribute('aria-pressed', b.dataset.tool === tool));
  if (!value) return;
  if (image.getAttribute('src') !== value.src) image.src = value.src;
  // The picture keeps its aspect ratio inside the image's box; the canvas covers exactly the picture.
  const scale = Math.min(image.clientWidth / value.width, image.clientHeight / value.height) || 0;
  const width = value.width * scale, height = value.height * scale;
  canvas.style.left = `${image.offsetLeft + (image.clientWidth - width) / 2}px`;
  canvas.style.top = `${image.offsetTop + (image.clientHeight - height) / 2}px`;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width);
  canvas.height = Math.round(height);
}

const radius = () => (Number(one('.size').value) / 100) * Math.max(props.value.width, props.value.height);

function at(event) {
  const box = one('canvas').getBoundingClientRect();
  const clip = (share) => Math.min(Math.max(share, 0), 0.9999);
  return [
    Math.round(clip((event.clientX - box.left) / box.width) * props.value.width * 10) / 10,
    Math.round(clip((event.clientY - box.top) / box.height) * props.value.height * 10) / 10,
  ];
}

function show() {
  const canvas = one('canvas'), pen = canvas.getContext('2d'), scale = canvas.width / props.value.width;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.strokeStyle = colours[tool];
  pen.lineWidth = 2 * radius() * scale;
  pen.lineCap = pen.lineJoin = 'round';
  pen.beginPath();
  points.forEach(([x, y], index) => (index ? pen.lineTo(x * scale, y * scale) : pen.moveTo(x * scale, y * scale)));
  if (points.length === 1) pen.lineTo(points[0][0] * scale + 0.1, points[0][1] * scale);
  pen.stroke();
}

element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.tool) tool = button.dataset.tool;
  if (button.dataset.do === 'undo') trigger('undo');
  if (button.dataset.do === 'clear') trigger('clear');
  layout();
});
element.addEventListener('pointerdown', (event) => {
  if (event.target.tagName !== 'CANVAS' || !props.value) return;
  event.preventDefault();
  if (tool === 'take' || tool === 'leave') {
    trigger('pick', { tool, point: at(event).map(Math.floor) });
    return;
  }
  event.target.setPointerCapture(event.pointerId);
  points = [at(event)];
  show();
});
element.addEventListener('pointermove', (event) => {
  if (!points.length) return;
  points.push(at(event));
  show();
});
element.addEventListener('pointerup', () => {
  if (points.length) trigger('stroke', { tool, points, radius: radius() });
  points = [];
});
element.addEventListener('pointercancel', () => { points = []; layout(); });
element.addEventListener('load', layout, true);
new ResizeObserver(layout).observe(element);
watch('value', layout);
layout();
