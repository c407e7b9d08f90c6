// CUDA devices made of the CPU's memory: a device guard, an allocator that counts and has limits, and the operators
// that make or look at memory. What computes is Python's affair (simulated_gpu/kernels.py): it asks here for a CPU
// tensor over the same memory, and hands back what a CPU operator made as a tensor of a device.
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/distributed/c10d/reducer_timer.hpp>
#include <torch/extension.h>

#include <atomic>

using namespace at;

extern "C" {
int simulated_device_count();
void simulated_set_device_count(int count);
int simulated_current();
int simulated_exchange(int device);
}

// --- the device guard: autograd's threads and operators switch devices through it; streams are Python's affair

namespace {
struct Guard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override { return kCUDA; }
  Device exchangeDevice(Device device) const override { return Device(kCUDA, simulated_exchange(device.index())); }
  Device getDevice() const override { return Device(kCUDA, simulated_current()); }
  void setDevice(Device device) const override { simulated_exchange(device.index()); }
  void uncheckedSetDevice(Device device) const noexcept override { simulated_exchange(device.index()); }
  c10::Stream getStream(Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device.index() < 0 ? getDevice() : device);
  }
  c10::Stream getDefaultStream(Device device) const override { return getStream(device); }
  c10::Stream getNewStream(Device device, int) const override { return getStream(device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return getStream(stream.device()); }
  DeviceIndex deviceCount() const noexcept override { return simulated_device_count(); }
  void record(void**, const c10::Stream&, const DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};
c10::impl::DeviceGuardImplRegistrar registered(kCUDA, new Guard());

// --- memory

constexpr int kMostDevices = 8;
constexpr int kFresh = 0x7f;  // what fresh memory holds is anybody's guess: these bytes are no number that is hoped for
std::atomic<int64_t> used_bytes[kMostDevices], peak_bytes[kMostDevices], limit_bytes[kMostDevices];

void take(int device, int64_t bytes) {
  int64_t now = used_bytes[device].fetch_add(bytes) + bytes, limit = limit_bytes[device];
  if (limit > 0 && now > limit) {
    used_bytes[device].fetch_sub(bytes);
    TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", bytes, " bytes. GPU ", device,
                     " has a total capacity of ", limit, " bytes of which ", limit - (now - bytes), " are free.");
  }
  int64_t peak = peak_bytes[device];
  while (now > peak && !peak_bytes[device].compare_exchange_weak(peak, now)) {
  }
}

void give_back(int device, int64_t bytes) { used_bytes[device].fetch_sub(bytes); }

struct Block {
  void* memory;
  int device;
  int64_t bytes;
};

void free_block(void* context) {
  auto* block = static_cast<Block*>(context);
  give_back(block->device, block->bytes);
  free(block->memory);
  delete block;
}

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    int device = simulated_current();
    take(device, static_cast<int64_t>(bytes));
    void* memory = nullptr;
    if (bytes) {
      TORCH_CHECK(posix_memalign(&memory, 64, bytes) == 0, "no memory left on the host of the simulated device");
      memset(memory, kFresh, bytes);
    }
    return {memory, new Block{memory, device, static_cast<int64_t>(bytes)}, free_block, Device(kCUDA, device)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* target, const void* source, size_t bytes) const override { memcpy(target, source, bytes); }
};
DeviceAllocator allocator;

void* address_of(const Tensor& tensor) {
  return tensor.numel() ? const_cast<void*>(tensor.const_data_ptr()) : nullptr;
}

// Return a CPU tensor over a device tensor's memory, which it keeps alive.
Tensor on_cpu(const Tensor& tensor) {
  Storage kept = tensor.storage();
  return at::for_blob(address_of(tensor), tensor.sizes())
      .strides(tensor.strides())
      .deleter([kept](void*) mutable {})
      .options(TensorOptions().dtype(tensor.dtype()).device(kCPU))
      .make_tensor();
}

// Return a device tensor over a CPU tensor's memory, which counts as the device's from here on.
Tensor on_device(const Tensor& tensor, int64_t index) {
  Device device(kCUDA, static_cast<DeviceIndex>(index));
  auto bytes = static_cast<int64_t>(tensor.storage().nbytes());
  take(static_cast<int>(index), bytes);
  Tensor kept = tensor;
  return at::for_blob(address_of(tensor), tensor.sizes())
      .strides(tensor.strides())
      .deleter([kept, index, bytes](void*) mutable {
        give_back(static_cast<int>(index), bytes);
        kept.reset();
      })
      .target_device(device)
      .options(TensorOptions().dtype(tensor.dtype()).device(device))
      .make_tensor();
}

// --- operators that make memory, or look at it in another way

using Sizes = c10::IntArrayRef;
constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::CUDA);

Device chosen(std::optional<Device> device) {
  return device && device->has_index() ? *device : Device(kCUDA, simulated_current());
}

Tensor device_empty(Sizes sizes, std::optional<ScalarType> dtype, std::optional<Layout>, std::optional<Device> device,
                    std::optional<bool>, std::optional<MemoryFormat> format) {
  c10::DeviceGuard guard(chosen(device));
  return at::detail::empty_generic(sizes, &allocator, kKeys, c10::dtype_or_default(dtype), format);
}

Tensor device_empty_strided(Sizes sizes, Sizes strides, std::optional<ScalarType> dtype, std::optional<Layout>,
                            std::optional<Device> device, std::optional<bool>) {
  c10::DeviceGuard guard(chosen(device));
  return at::detail::empty_strided_generic(sizes, strides, &allocator, kKeys, c10::dtype_or_default(dtype));
}

Tensor device_as_strided(const Tensor& self, Sizes sizes, Sizes strides, std::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(self, sizes, strides, offset);
}
Tensor device_view(const Tensor& self, Sizes sizes) { return at::native::view(self, sizes); }
Tensor device_reshape_alias(const Tensor& self, Sizes sizes, Sizes strides) {
  return at::native::_reshape_alias(self, sizes, strides);
}
Tensor device_unfold(const Tensor& self, int64_t dim, int64_t size, int64_t step) {
  return at::native::unfold(self, dim, size, step);
}

const Tensor& device_resize_(const Tensor& self, Sizes sizes, std::optional<MemoryFormat> format) {
  auto* impl = self.unsafeGetTensorImpl();
  int64_t count = 1;
  for (auto size : sizes) count *= size;
  size_t bytes = (count + impl->storage_offset()) * self.itemsize(), before = self.storage().nbytes();
  if (bytes > before) {
    c10::DeviceGuard guard(self.device());
    auto memory = allocator.allocate(bytes);
    if (before) memcpy(memory.get(), self.storage().data(), before);
    impl->unsafe_storage().set_data_ptr_noswap(std::move(memory));
    impl->unsafe_storage().unsafeGetStorageImpl()->set_nbytes(bytes);
  }
  impl->set_sizes_contiguous(sizes);
  if (format && *format != MemoryFormat::Preserve) impl->empty_tensor_restride(*format);
  return self;
}
}  // namespace

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", TORCH_FN(device_empty));
  library.impl("empty_strided", TORCH_FN(device_empty_strided));
  library.impl("as_strided", TORCH_FN(device_as_strided));
  library.impl("view", TORCH_FN(device_view));
  library.impl("_reshape_alias", TORCH_FN(device_reshape_alias));
  library.impl("unfold", TORCH_FN(device_unfold));
  library.impl("resize_", TORCH_FN(device_resize_));
}

// --- DistributedDataParallel asks for a timer of the device

namespace c10d {
class SimulatedTimer final : public Timer {
 public:
  explicit SimulatedTimer(c10::Device) {}
  std::optional<int64_t> measureDifference(Event start, Event end) override {
    auto first = getTimeRef(start), last = getTimeRef(end);
    return first < 0 || last < 0 ? std::nullopt : std::optional<int64_t>(last - first);
  }
};
C10_REGISTER_TYPED_CLASS(TimerRegistry, c10::kCUDA, SimulatedTimer);
}  // namespace c10d

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.def("on_cpu", &on_cpu);
  module.def("on_device", &on_device);
  module.def("device_count", [] { return simulated_device_count(); });
  module.def("set_device_count", [](int count) { simulated_set_device_count(count); });
  module.def("current", [] { return simulated_current(); });
  module.def("exchange", [](int device) { return simulated_exchange(device); });
  module.def("used_bytes", [](int device) { return used_bytes[device].load(); });
  module.def("peak_bytes", [](int device) { return peak_bytes[device].load(); });
  module.def("reset_peak", [](int device) { peak_bytes[device] = used_bytes[device].load(); });
  module.def("set_limit", [](int device, int64_t bytes) { limit_bytes[device] = bytes; });
}
