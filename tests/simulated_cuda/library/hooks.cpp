// What torch asks of CUDA as a whole: whether there is any, how many devices, and which one is current.
//
// A library of its own, loaded before torch's Python part: torch looks for its CUDA hooks once and keeps the answer.
#include <ATen/detail/CUDAHooksInterface.h>

#include <mutex>
#include <unordered_set>

namespace {
int device_count = 1;
thread_local int current_device = 0;
}  // namespace

extern "C" {
int simulated_device_count() { return device_count; }
void simulated_set_device_count(int count) { device_count = count; }
int simulated_current() { return current_device; }
int simulated_exchange(int device) {  // a negative one stands for the current one
  int before = current_device;
  if (device >= 0) current_device = device;
  return before;
}
}

namespace {
// What DistributedDataParallel pins; what the project does goes through simulated_gpu/memory.py.
struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = bytes ? malloc(bytes) : nullptr;
    std::lock_guard<std::mutex> guard(lock());
    known().insert(memory);
    return {memory, memory, forget, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return forget; }
  void copy_data(void* target, const void* source, size_t bytes) const override { memcpy(target, source, bytes); }
  bool has(const void* memory) const {
    std::lock_guard<std::mutex> guard(lock());
    return known().count(const_cast<void*>(memory)) > 0;
  }

 private:
  static void forget(void* memory) {
    std::lock_guard<std::mutex> guard(lock());
    known().erase(memory);
    free(memory);
  }
  static std::mutex& lock() {
    static std::mutex own;
    return own;
  }
  static std::unordered_set<void*>& known() {
    static std::unordered_set<void*> own;
    return own;
  }
};
PinnedAllocator pinned;
}  // namespace

namespace at {
struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return device_count; }
  DeviceIndex current_device() const override { return simulated_current(); }
  DeviceIndex getCurrentDevice() const override { return simulated_current(); }
  void setCurrentDevice(DeviceIndex device) const override { simulated_exchange(device); }
  DeviceIndex exchangeDevice(DeviceIndex device) const override { return simulated_exchange(device); }
  Allocator* getPinnedMemoryAllocator() const override { return &pinned; }
  bool isPinnedPtr(const void* memory) const override { return pinned.has(memory); }
  DeviceIndex maybeExchangeDevice(DeviceIndex device) const override { return simulated_exchange(device); }
};
REGISTER_CUDA_HOOKS(CUDAHooks);
}  // namespace at
